"""Memory-mapped arrays in safetensors files: eight bytes with the header's length, a JSON header, then the arrays.

The library's NumPy reader copies what it reads. A mapping does not, and its pages are shared by all processes of a
machine, which matters for the index of a million keys in each actor and for packs of many GiB.

Format: https://github.com/huggingface/safetensors, "Format".
"""

import json
import math
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"U8": "<u1", "I16": "<i2", "I32": "<i4", "U32": "<u4", "I64": "<i8"}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # the format's own limit, in bytes
ALIGNMENT = 8
MAX_SIDES, MAX_ITEMS = 8, 2**48  # of an array


def header(
    shapes: Mapping[str, tuple[np.dtype, tuple[int, ...]]], metadata: Mapping[str, str], length: int = 0
) -> bytes:
    """The first bytes of a file that holds these arrays in this order, padded with spaces.

    Args:
        shapes: Dtype and shape of each array.
        metadata: Strings by name, stored beside them.
        length: Total length to pad to; 0 pads to a multiple of 8.

    Raises:
        ValueError: The header needs more than `length` bytes.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    length = length or 8 + -(-len(text) // ALIGNMENT) * ALIGNMENT
    if len(text) > length - 8:
        raise ValueError(f"a header of {len(text)} bytes does not fit into {length}")
    return (length - 8).to_bytes(8, "little") + text.ljust(length - 8)


def map_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Map a file.

    Returns:
        Metadata, and arrays that are read-only views of the file.

    Raises:
        ValueError: Why the file cannot be mapped, as the end of a sentence.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait
            raise ValueError("is not a file")
        raw = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if not len(raw):  # which cannot be mapped
        raise ValueError("is empty")
    try:
        length = int.from_bytes(raw[:8].tobytes(), "little")
        if not 2 <= length <= MAX_HEADER:
            raise ValueError
        entries = json.loads(raw[8 : 8 + length].tobytes())
        metadata = {str(key): str(value) for key, value in entries.pop("__metadata__", {}).items()}
        spans = {name: _span(entry) for name, entry in entries.items()}
        _check_order(spans.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("is not a safetensors file, or its header is damaged") from None
    begin, end = 8 + length, 8 + length + max((span[3] for span in spans.values()), default=0)
    if len(raw) != end:
        state = "short" if len(raw) < end else "too long"
        raise ValueError(f"is {state}: it has {len(raw):,} bytes and must have {end:,}")
    arrays: dict[str, np.ndarray] = {}
    for name, (dtype, shape, start, stop) in spans.items():
        arrays[name] = raw[begin + start : begin + stop].view(dtype).reshape(shape)
    return metadata, arrays


def _span(entry: Mapping[str, Any]) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Dtype, shape, first and past-the-last byte of one array; ValueError if they do not match."""
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop)) or len(shape) > MAX_SIDES:
        raise ValueError
    if math.prod(side or 1 for side in shape) > MAX_ITEMS:  # which NumPy refuses even where another side is 0
        raise ValueError
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError
    return dtype, shape, start, stop


def _check_order(spans: Iterable[tuple[np.dtype, tuple[int, ...], int, int]]) -> None:
    """ValueError if arrays overlap, or if there are bytes between them that belong to none."""
    end = 0
    for start, stop in sorted((span[2], span[3]) for span in spans):
        if start != end:
            raise ValueError
        end = stop
