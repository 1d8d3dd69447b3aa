"""CIFAR-10 and CIFAR-100, in the python or the binary form."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.pickles import read_pickle
from data.sources.cifar_files import Files, Kind, find_files
from data.sources.human_labels import check_set, read_human_labels
from data.sources.source import Listed, Source, numbered_keys

SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE * SIDE  # bytes of an image: all of red, then green, then blue
PUBLISHED = 60_000  # images of either dataset
PURPOSE = 0x63696661  # "cifa": keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class Options:
    """What is made of the training images.

    Attributes:
        coarse: Whether CIFAR-100's labels are its 20 superclasses.
        clean_train: How many of them clean train gets, as many of each class, or one more; `clean_val` likewise. Noisy
            train has the rest.
        seed: Decides which.
        human_labels: A file of labels that people gave, and which of them; noisy train has these.
    """

    coarse: bool = False
    clean_train: int = 0
    clean_val: int = 0
    seed: int = 1
    human_labels: tuple[Path, str] | None = None


@dataclass(frozen=True)
class _Part:
    """One file of images: (n, 3, 32, 32) uint8, and (n,) int64 labels of each kind."""

    images: np.ndarray
    labels: dict[str, np.ndarray]


def read_cifar(source: Path, kind: Kind, wanted: Options = Options()) -> Source:
    """A dataset whose noisy labels are its own, which are right, unless people's are given.

    Args:
        source: Where its files are; see `data.sources.cifar_files.find_files`.
        kind: Which it is.
        wanted: What is made of the training images.

    Raises:
        DataError: A file is missing or malformed, or there are too few images for what is wanted.
    """
    if wanted.human_labels:
        check_set(kind, wanted.human_labels[1], wanted.coarse)
    if wanted.seed < 0:
        raise DataError(f"--seed is {wanted.seed}; it must be at least 0.")
    files = find_files(source, kind)
    names = _class_names(files, kind)
    parts = {name: _read_part(files, kind, name) for name in (*files.form.train, files.form.test)}
    _check_sizes(files, kind, parts)
    level = "coarse" if wanted.coarse else "fine"
    train = np.concatenate([parts[name].labels[level] for name in files.form.train])
    test = parts[files.form.test].labels[level]
    given = train
    if wanted.human_labels:
        path, labels = wanted.human_labels
        own = np.concatenate([parts[name].labels["fine"] for name in files.form.train])
        given = read_human_labels(path, kind, labels, own, files.root)
    origins = [f"{name}:{row}" for name in files.form.train for row in range(len(parts[name].images))]
    keys = numbered_keys(kind.name, origins)

    def listed(rows: np.ndarray, noisy: np.ndarray) -> Listed:
        picked = [[names[row] for row in rows.tolist()] for names in (origins, keys)]
        return Listed(picked[0], picked[1], train[rows], noisy[rows])

    splits = {}
    rest = np.ones(len(train), bool)
    for split, rows in _drawn(train, kind.labels[level].classes, wanted).items():
        splits[split] = listed(rows, given if wanted.human_labels else np.full_like(train, -1))
        rest[rows] = False
    splits = {"noisy_train": listed(np.flatnonzero(rest), given), **splits}
    of_test = [f"{files.form.test}:{row}" for row in range(len(test))]
    test_keys = numbered_keys(kind.name, of_test, len(train))
    splits["clean_test"] = Listed(of_test, test_keys, test, np.full_like(test, -1))
    images = {name: part.images for name, part in parts.items()}
    return Source(files.root, names[level], splits, lambda origin: _encoded(images, origin), side=SIDE)


def remark_on_size(source: Source, kind: Kind) -> str:
    """What to say of a dataset that is smaller than the published one; empty of that."""
    count = sum(map(len, source.splits.values()))
    if count == PUBLISHED:
        return ""
    return f"{source.root} has {count:,} images; {kind.title} as published has {PUBLISHED:,}."


def _encoded(images: Mapping[str, np.ndarray], origin: str) -> bytes:
    name, _, row = origin.rpartition(":")
    return png_of(images[name][int(row)].transpose(1, 2, 0))


def png_of(pixels: np.ndarray) -> bytes:
    """(height, width, 3) uint8 as a PNG, fast rather than small: a file takes a block of the disk anyway."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with the number of its filter, 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _check_sizes(files: Files, kind: Kind, parts: Mapping[str, _Part]) -> None:
    """Refuse files that were cut off at an image, or are of different datasets."""
    test = files.form.test
    count = len(parts[test].images)
    for name in files.form.train:
        if len(parts[name].images) != kind.ratio * count:
            as_many = "as many" if kind.ratio == 1 else f"{kind.ratio} times as many"
            raise DataError(
                f"{files.root / name} has {len(parts[name].images):,} images and {test} has {count:,}; it must have"
                f" {as_many}, and {PUBLISHED // 6 * kind.ratio:,} as published."
            )


def _class_names(files: Files, kind: Kind) -> dict[str, tuple[str, ...]]:
    """The names of the classes by the kind of label."""
    names = {}
    for name in files.form.names:
        place, data = files.root / name, files.read(name)
        for level, labels in kind.labels.items():
            if files.form is kind.python:
                found = _dict(data, place).get(labels.names_field)
                texts = [_text(one) for one in found] if type(found) is list else []
            elif name == labels.names_file:
                texts = [line.strip() for line in data.decode("utf-8", "replace").split("\n") if line.strip()]
            else:
                continue
            if len(texts) != labels.classes:
                raise DataError(f"{place} has names of {len(texts)} classes; it must have {labels.classes}.")
            names[level] = tuple(texts)
    return names


def _read_part(files: Files, kind: Kind, name: str) -> _Part:
    place, data = files.root / name, files.read(name)
    part = _python_part(data, place, kind) if files.form is kind.python else _binary_part(data, place, kind)
    for level, labels in part.labels.items():
        classes = kind.labels[level].classes
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if wrong.size:
            raise DataError(f"{place}, image {wrong[0]}: its label is {labels[wrong[0]]}, not from 0 to {classes - 1}.")
    return part


def _python_part(data: bytes, place: Path, kind: Kind) -> _Part:
    """A pickle of a dict: ``data``, (n, 3072) uint8, and lists of n labels."""
    found = _dict(data, place)
    images = found.get("data")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != PIXELS:
        raise DataError(f"{place} has no 'data' of images with {PIXELS} bytes each; it must be as published.")
    labels = {}
    for level, one in kind.labels.items():
        value = found.get(one.field)
        if type(value) is not list or any(type(label) is not int or abs(label) > 1 << 31 for label in value):
            raise DataError(f"{place} has no list of numbers called '{one.field}'; it must be as published.")
        if len(value) != len(images):
            raise DataError(f"{place} has {len(images):,} images and {len(value):,} of '{one.field}'.")
        labels[level] = np.array(value, np.int64)
    return _part(images, labels, place)


def _binary_part(data: bytes, place: Path, kind: Kind) -> _Part:
    """Records of a byte for each kind of label and 3072 of pixels."""
    length = len(kind.labels) + PIXELS
    if len(data) % length:
        raise DataError(f"{place} has {len(data):,} bytes, which are no whole number of records of {length:,}.")
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    labels = {level: records[:, column].astype(np.int64) for column, level in enumerate(kind.labels)}
    return _part(records[:, len(labels) :], labels, place)


def _part(images: np.ndarray, labels: dict[str, np.ndarray], place: Path) -> _Part:
    if not len(images):
        raise DataError(f"{place} has no image; it must be as published.")
    return _Part(images.reshape(-1, CHANNELS, SIDE, SIDE), labels)


def _dict(data: bytes, place: Path) -> dict[str, Any]:
    """A pickled dict, whose keys Python 2 wrote as bytes."""
    found = read_pickle(data, place)
    if type(found) is not dict:
        raise DataError(f"{place} holds no dict; it must be as published.")
    return {_text(key): value for key, value in found.items()}


def _text(value: Any) -> str:
    return value.decode("latin-1") if type(value) is bytes else value if type(value) is str else ""


def _drawn(labels: np.ndarray, classes: int, wanted: Options) -> dict[str, np.ndarray]:
    """Rows of the clean lists that are taken out of the training images, in order; of those that are asked for."""
    rng = np.random.default_rng([wanted.seed, PURPOSE])
    order = rng.permutation(len(labels))
    rows = [order[labels[order] == label] for label in range(classes)]
    found: dict[str, np.ndarray] = {}
    for split, flag in (("clean_train", "--clean-train"), ("clean_val", "--val")):
        count = getattr(wanted, split)
        if not 0 <= count < len(labels):
            raise DataError(f"{flag} is {count}; it must be at least 0 and below {len(labels):,}, the training images.")
        if not count:
            continue
        more = rng.permutation(classes) < count % classes
        each = [count // classes + int(one) for one in more]
        for label, (there, size) in enumerate(zip(rows, each, strict=True)):
            if size >= len(there):
                raise DataError(
                    f"{flag} is {count}, which takes {size} of the {len(there)} images left of class {label}; noisy"
                    " train must keep at least one of each."
                )
        found[split] = np.sort(np.concatenate([there[:size] for there, size in zip(rows, each, strict=True)]))
        rows = [there[size:] for there, size in zip(rows, each, strict=True)]
    return found
