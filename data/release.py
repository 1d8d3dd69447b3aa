"""The released text files as arrays of keys and labels.

Read once per split, vectorised: the full release (1,000,000 + 72,409 keys) takes about two seconds and no Python
object per key. Labels are looked up by key, because the label files are shuffled and cover more than the lists.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from data.errors import DataError
from data.layout import (
    CATEGORIES,
    CLEAN_LABELS,
    LIST_FILES,
    NOISY_LABELS,
    SPLITS,
    find_layout,
    why_all_missing,
)

__all__ = [
    "CATEGORIES",
    "CLEAN_LABELS",
    "LIST_FILES",
    "NOISY_LABELS",
    "SPLITS",
    "Release",
    "Split",
    "open_release",
    "training_split",
]

PREFIX = b"images/"
MAX_KEY_BYTES = 255  # released keys have at most 37; a bound keeps a garbage line from widening the whole array
MAX_LABEL_DIGITS = 9  # fits int32
BLOCK = 65_536  # lines cut at a time: keeps the peak near the size of the result
PRESENCE_SAMPLE = 200  # keys whose images are looked for when a split is first read
MINI_SEED = 13  # of the notebook (Sprinter1999/Clothing1M_FedAvg), whose debug switch keeps a random tenth
NEWLINE, SPACE = 10, 32


@dataclass(frozen=True)
class Split:
    """One list of images, in the list's order.

    Attributes:
        name: One of `SPLITS`, or ``noisy_train_mini``.
        keys: (n,) bytes, dtype ``S<m>``, such as ``b"images/7/88/314159265,2718281788.jpg"``.
        labels: (n,) int32, the label that training sees: noisy for noisy train, clean for the three clean lists.
    """

    name: str
    keys: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Release:
    """A folder in the released layout. Splits are read when first asked for, then kept: treat them as read-only.

    Attributes:
        root: The folder as it was given.
        class_names: In the order of their labels; as many as the category file has lines.
        text: The folder of the text files.
        images: The folder of the image folders ``0`` to ``9``.
    """

    root: Path
    class_names: tuple[str, ...]
    text: Path
    images: Path
    _splits: dict[str, Split] = field(default_factory=dict, compare=False, repr=False)

    def split(self, name: str) -> Split:
        """Keys and labels of one of `SPLITS`.

        Raises:
            DataError: An unknown name, an unreadable file, a malformed line, a duplicate key, a key without label,
                or missing images among 200 that are looked for.
        """
        if name not in LIST_FILES:
            raise DataError(f"there is no split '{name}'; it must be one of {', '.join(SPLITS)}.")
        if name not in self._splits:
            split = self._read_split(name)
            self._check_presence(split)
            self._splits[name] = split
        return self._splits[name]

    def image_path(self, key: bytes) -> Path:
        """Where the image of `key` lies."""
        return self.images / bytes(key).removeprefix(PREFIX).decode("utf-8", "surrogateescape")

    def double_labelled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The images that carry both labels, 37,497 in the full release, none of them in noisy train.

        Returns:
            Keys (n,) bytes in byte order, clean labels (n,) int32, noisy labels (n,) int32.

        Raises:
            DataError: An unreadable or malformed label file.
        """
        clean_keys, clean = self._labels(CLEAN_LABELS)
        noisy_keys, noisy = self._labels(NOISY_LABELS)
        rows, found = _find(clean_keys, noisy_keys)
        return clean_keys[found], clean[found], noisy[rows[found]]

    def _read_split(self, name: str) -> Split:
        label_file = NOISY_LABELS if name == "noisy_train" else CLEAN_LABELS
        path = self.text / LIST_FILES[name]
        table_keys, table_labels = self._labels(label_file)
        keys = _read_keys(path)
        order = _unique_order(keys, path)
        rows, found = _find(keys[order], table_keys)
        if not found.all():
            line = int(order[~found].min())
            raise DataError(
                f"{path}, line {line + 1}: {_show(keys[line])} has no label; it must have one in"
                f" {self.text / label_file}."
            )
        labels = np.empty(len(keys), np.int32)
        labels[order] = table_labels[rows]
        return Split(name, keys, labels)

    def _labels(self, file: str) -> tuple[np.ndarray, np.ndarray]:
        """One label file as keys (n,) in byte order and their labels (n,) int32."""
        keys, labels = _read_labels(self.text / file, len(self.class_names))
        order = _unique_order(keys, self.text / file)
        return keys[order], labels[order]

    def _check_presence(self, split: Split) -> None:
        """Look for the images of a few evenly spaced keys, to fail before training rather than in it."""
        rows = np.linspace(0, len(split.keys) - 1, min(len(split.keys), PRESENCE_SAMPLE)).astype(np.int64)
        missing = [key for key in split.keys[rows] if not self._present(key)]
        if not missing:
            return
        key, path = _show(missing[0]), self.image_path(missing[0])
        advice = "unpack the tars again, since a partial download cannot be used"
        if len(missing) == len(rows):
            advice = why_all_missing(self.root, self.images, key)
        raise DataError(
            f"{len(missing)} of the {len(rows)} images looked for out of {LIST_FILES[split.name]} are missing,"
            f" the first at {path}; {advice}."
        )

    def _present(self, key: bytes) -> bool:
        path = self.image_path(key)
        try:
            return path.is_file()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; every image must be readable.") from None


def open_release(root: Path) -> Release:
    """Open a folder in the released layout, or one of its common variants (data/README.md lists them).

    Reads the class names only.

    Raises:
        DataError: The folder is no release (the sentence says what it is), or the category file is malformed.
    """
    layout = find_layout(root)
    return Release(root, _read_class_names(layout.text / CATEGORIES), layout.text, layout.images)


def training_split(release: Release, name: str) -> Split:
    """What the clients share out among them.

    Args:
        release: Where to read from.
        name: ``noisy`` (noisy train), ``noisy-mini`` (a tenth of it, the same for every run and seed, in the list's
            order, at least one image) or ``clean`` (clean train).

    Raises:
        DataError: An unknown name, or whatever `Release.split` refuses.
    """
    if name == "clean":
        return release.split("clean_train")
    if name == "noisy":
        return release.split("noisy_train")
    if name != "noisy-mini":
        raise DataError(f"there is no training split '{name}'; it must be one of noisy, noisy-mini, clean.")
    full = release.split("noisy_train")
    count = max(1, len(full.keys) // 10)
    rows = np.sort(np.random.default_rng(MINI_SEED).permutation(len(full.keys))[:count])
    return Split("noisy_train_mini", full.keys[rows], full.labels[rows])


def _read_class_names(path: Path) -> tuple[str, ...]:
    try:
        names = [line.strip() for line in _read(path).decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; it must hold one class name per line.") from None
    for line, name in enumerate(names, 1):
        if not name or name in names[: line - 1]:
            raise DataError(f"{path}, line {line}: {name!r} must be a class name that no line before it has.")
    return tuple(names)


def _read_keys(path: Path) -> np.ndarray:
    """A key list as (n,) bytes."""
    data = _read(path)
    text = np.frombuffer(data, np.uint8)
    separators = np.flatnonzero(text <= SPACE)
    wrong = np.flatnonzero(text[separators] != NEWLINE)
    if wrong.size:
        _refuse_line(path, data, int(separators[wrong[0]]), "one key and nothing else")
    return _cut_keys(path, data, _after(separators), np.append(separators, len(data)))


def _read_labels(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A label file as keys (n,) bytes and labels (n,) int32, in the file's order."""
    data = _read(path)
    text = np.frombuffer(data, np.uint8)
    allowed = f"a key, one space and a label from 0 to {num_classes - 1}"
    # A well-formed file has a space in each line, and a newline between them, and no other blank or control byte.
    separators = np.append(np.flatnonzero(text <= SPACE), len(data))
    expected = np.where(np.arange(len(separators)) % 2, NEWLINE, SPACE)
    wrong = np.flatnonzero(text[separators[:-1]] != expected[:-1])
    if wrong.size or len(separators) % 2:
        _refuse_line(path, data, int(separators[wrong[0]]) if wrong.size else len(data), allowed)
    spaces, ends = separators[::2], separators[1::2]
    labels, good = _parse_numbers(text, spaces + 1, ends)
    bad = np.flatnonzero(~good | (labels >= num_classes))
    if bad.size:
        _refuse_line(path, data, int(spaces[bad[0]]), allowed)
    return _cut_keys(path, data, _after(ends[:-1]), spaces), labels


def _read(path: Path) -> bytes:
    """A text file with LF line ends, no byte order mark and no final newline."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the release has it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; it must be a readable text file.") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    data = data.removesuffix(b"\n")
    if not data:
        raise DataError(f"{path} is empty; it must have at least one line.")
    return data


def _after(separators: np.ndarray) -> np.ndarray:
    """Where lines start, given where the lines before them end."""
    return np.concatenate([np.zeros(1, np.int64), separators + 1])


def _cut_keys(path: Path, data: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The keys at data[starts:ends] as (n,) bytes."""
    allowed = f"a key that starts with images/ and has {MAX_KEY_BYTES} bytes at most"
    lengths = ends - starts
    bad = np.flatnonzero((lengths <= len(PREFIX)) | (lengths > MAX_KEY_BYTES))
    if bad.size:
        _refuse_line(path, data, int(starts[bad[0]]), allowed)
    width = int(lengths.max())
    table = np.empty((len(starts), width), np.uint8)
    for first in range(0, len(starts), BLOCK):
        rows = slice(first, first + BLOCK)
        chunk = np.frombuffer(data[starts[first] : ends[rows][-1]] + bytes(width), np.uint8)
        table[rows] = np.lib.stride_tricks.sliding_window_view(chunk, width)[starts[rows] - starts[first]]
    for column in range(int(lengths.min()), width):
        table[lengths <= column, column] = 0
    bad = np.flatnonzero((table[:, : len(PREFIX)] != np.frombuffer(PREFIX, np.uint8)).any(axis=1))
    if bad.size:
        _refuse_line(path, data, int(starts[bad[0]]), allowed)
    for climb in (b"/..", b"//"):  # either could lead out of the release
        if (position := data.find(climb)) >= 0:
            _refuse_line(path, data, position, f"a key without {climb.decode()!r}")
    keys: np.ndarray = table.view(f"S{width}")[:, 0]
    return keys


def _parse_numbers(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The decimal numbers at text[starts:ends] as (n,) int32, and which of them are numbers of a sane length."""
    lengths = ends - starts
    good = (lengths > 0) & (lengths <= MAX_LABEL_DIGITS)
    numbers = np.zeros(len(starts), np.int32)
    for column in range(int(np.where(good, lengths, 0).max(initial=0))):
        rows = np.flatnonzero(good & (lengths > column))
        digits = text[starts[rows] + column].astype(np.int32) - ord("0")
        good[rows] &= (digits >= 0) & (digits <= 9)
        numbers[rows] = numbers[rows] * 10 + digits
    return numbers, good


def _unique_order(keys: np.ndarray, path: Path) -> np.ndarray:
    """The order that sorts `keys`; refuses a key that comes twice."""
    if (keys[1:] > keys[:-1]).all():  # the released lists are sorted already
        return np.arange(len(keys))
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if twice.size:
        line = int(order[twice + 1].min())
        first = int(np.flatnonzero(keys == keys[line])[0])
        raise DataError(
            f"{path}, line {line + 1}: {_show(keys[line])} is in line {first + 1} already; a key must come once."
        )
    return order


def _find(keys: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `keys` in `table` and whether they are there; both are sorted, which makes the search run in cache."""
    rows = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return rows, table[rows] == keys


def _refuse_line(path: Path, data: bytes, position: int, allowed: str) -> NoReturn:
    """Raise for the line of `data` that holds byte `position`."""
    start = data.rfind(b"\n", 0, position) + 1
    end = data.find(b"\n", position)
    line = data[start : end if end >= 0 else len(data)]
    shown = _show(line[:80]) + ("..." if len(line) > 80 else "")
    raise DataError(f"{path}, line {data.count(10, 0, start) + 1} is {shown!r}; it must be {allowed}.")


def _show(text: bytes) -> str:
    return bytes(text).decode("utf-8", "backslashreplace")
