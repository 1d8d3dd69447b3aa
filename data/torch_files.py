"""Reads ``.pt`` files as ``torch.save`` writes them, without PyTorch and without running anything that is in them.

There are two forms. Since PyTorch 1.6 a file is a zip archive, not compressed: ``NAME/data.pkl`` and the bytes of each
storage in ``NAME/data/KEY``. Before, it was five pickles in a row (a magic number, the protocol, facts about the
machine, the object, the keys of its storages), and then each storage: how many items, in 8 bytes, and the items.
"""

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.pickled_arrays import Name, WrongError, are_sizes, array_of, is_size, text_of
from data.pickles import Machine
from data.reading import read_at_most

MOST_BYTES = 64 << 20  # CIFAR-10N has 2.4 MB
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES = {
    "torch.BoolStorage": "?",
    "torch.ByteStorage": "u1",
    "torch.CharStorage": "i1",
    "torch.ShortStorage": "<i2",
    "torch.IntStorage": "<i4",
    "torch.LongStorage": "<i8",
    "torch.HalfStorage": "<f2",
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
}


class _Storages:
    """The items that tensors are made of, by their keys."""

    def __init__(self) -> None:
        self.raw: dict[str, bytes] = {}
        self.asked: dict[str, tuple[np.dtype[Any], int]] = {}  # what the object says of each: dtype, number of items

    def find(self, identity: Any) -> "_Storage":
        """What stands for a storage: ("storage", its type, its key, where it was, its number of items)."""
        if type(identity) is not tuple or len(identity) not in (5, 6):
            raise WrongError("asks for something that is no tensor's")
        word, kind, key, _, count = identity[:5]
        if text_of(word) != "storage" or type(kind) is not Name or kind.text not in DTYPES or not is_size(count):
            raise WrongError("asks for something that is no tensor's")
        if any(one is not None for one in identity[5:]):
            raise WrongError("has a part of a storage")
        dtype = np.dtype(DTYPES[kind.text])
        self.asked[text_of(key)] = dtype, count
        return _Storage(self, text_of(key), dtype, count)


class _Storage:
    __slots__ = ("count", "dtype", "key", "storages")

    def __init__(self, storages: _Storages, key: str, dtype: np.dtype[Any], count: int) -> None:
        self.storages, self.key, self.dtype, self.count = storages, key, dtype, count


def _tensor(args: tuple[Any, ...]) -> np.ndarray | None:
    """A tensor as an array: (storage, its first item there, shape, steps between items, three things not needed here).

    Returns:
        None as long as the storages are not read.
    """
    if len(args) not in (6, 7) or type(args[0]) is not _Storage or not is_size(args[1]):
        raise WrongError("has a tensor that is not one of numbers")
    storage, first, shape, steps = args[:4]
    if not are_sizes(shape) or not are_sizes(steps) or len(shape) != len(steps):
        raise WrongError("has a tensor that is not one of numbers")
    count = math.prod(shape)
    inner = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    if count and any(size > 1 and step != wanted for size, step, wanted in zip(shape, steps, inner, strict=True)):
        raise WrongError("has a tensor whose items do not lie in their order")
    if first + count > storage.count:
        raise WrongError("has a tensor that is larger than what it is made of")
    if not storage.storages.raw:
        return None
    size = storage.dtype.itemsize
    raw = storage.storages.raw.get(storage.key, b"")[first * size : (first + count) * size]
    return array_of(raw, storage.dtype, shape)


CALLS = {"torch._utils._rebuild_tensor_v2": _tensor}


def read_torch(path: Path) -> Any:
    """What was saved, with tensors as arrays.

    Returns:
        As from `data.pickles.read_pickle`.

    Raises:
        DataError: `path` is no such file, or is damaged, or holds anything but numbers, texts and plain containers.
    """
    data = read_at_most(path, MOST_BYTES)
    try:
        return _zipped(data, path) if data.startswith(b"PK\x03\x04") else _in_a_row(data, path)
    except WrongError as error:
        raise DataError(f"{path} {error}; it must be a .pt file as published.") from None


def _machine(data: bytes, path: Path, storages: _Storages) -> Machine:
    return Machine(data, path, CALLS, frozenset(DTYPES), storages.find)


def _zipped(data: bytes, path: Path) -> Any:
    storages = _Storages()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise WrongError(f"is a zip file with {len(names)} files called data.pkl")
            top, left = names[0].removesuffix("data.pkl"), len(data)
            if f"{top}byteorder" in archive.namelist() and _member(archive, f"{top}byteorder", 16) != b"little":
                raise WrongError("has numbers in another order of bytes")
            pickled = _member(archive, names[0], left)
            left -= len(pickled)
            found = _machine(pickled, path, storages).load()
            for key in storages.asked:
                storages.raw[key] = _member(archive, f"{top}data/{key}", left)
                left -= len(storages.raw[key])
    except (DataError, WrongError):
        raise
    except Exception:  # whatever the library stumbles over is damage
        raise WrongError("is damaged: it is not a whole zip file") from None
    return _machine(pickled, path, storages).load() if storages.raw else found


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A file of the archive, which `torch.save` does not compress, so that it cannot be larger than it is there."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise WrongError("is a zip file that torch.save has not written")
    return archive.read(info)


def _in_a_row(data: bytes, path: Path) -> Any:
    storages = _Storages()
    machine = _machine(data, path, storages)
    if not data.startswith(b"\x80") or any(_differs(machine.load(), number) for number in (MAGIC, PROTOCOL)):
        raise WrongError("is not a file that torch.save has written")
    facts = machine.load()
    if type(facts) is not dict or facts.get("little_endian") is not True:
        raise WrongError("has numbers in another order of bytes")
    start = machine.at
    found = machine.load()
    keys = machine.load()
    at = machine.at
    if type(keys) is not list or sorted(map(text_of, keys)) != sorted(storages.asked):
        raise WrongError("is damaged: its tensors are not all there")
    for key in map(text_of, keys):
        dtype, count = storages.asked[key]
        if data[at : at + 8] != struct.pack("<q", count) or at + 8 + count * dtype.itemsize > len(data):
            raise WrongError("is damaged: its tensors are not all there")
        storages.raw[key] = data[at + 8 : at + 8 + count * dtype.itemsize]
        at += 8 + count * dtype.itemsize
    if storages.raw:
        machine.at = start
        found = machine.load()
    return found


def _differs(value: Any, number: int) -> bool:
    return type(value) is not int or value != number
