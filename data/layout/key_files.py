"""Reads the released text files as bytes: lines to arrays, or an error that names the malformed line.

Vectorised: no Python object per key, because the full release has two million lines.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from data.errors import DataError
from data.text import LONGEST, one_line, shown

PREFIX = b"images/"
MAX_KEY_BYTES = 255  # released keys have at most 37; a bound keeps a garbage line from widening the whole array
MAX_CLASSES = 32_767  # labels are int16 in an index
MAX_LABEL_DIGITS = 9  # fits int32
BLOCK = 65_536  # lines cut at a time: keeps peak memory near the size of the result
NEWLINE, SPACE = 10, 32


def read_class_names(path: Path) -> tuple[str, ...]:
    """The category file: one name per line, in the order of their labels."""
    names = [line.strip() for line in read_name_lines(path, "class", MAX_CLASSES)]
    if problem := problem_of_names(names):
        raise DataError(f"{path}, line {problem}")
    return tuple(names)


def read_name_lines(path: Path, kind: str, most: int) -> list[str]:
    """Lines of a file that has a name in each.

    Args:
        path: The file.
        kind: Whose names they are, for a message.
        most: How many there may be.

    Raises:
        DataError: The file is missing, empty, too long or no text.
    """
    data = read_text(path)
    if not data:
        raise DataError(f"{path} is empty; it must have at least one line.")
    if (lines := data.count(NEWLINE) + 1) > most:
        raise DataError(f"{path} has {lines:,} lines; it must have at most {most:,}.")
    try:
        return data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; it must hold one {kind} name per line.") from None


def problem_of_names(names: Sequence[str]) -> str:
    """The place, from 1, of the first name that no class can have, and what it must be; empty if there is none."""
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name.strip() or not name.isprintable() or len(name) > LONGEST or name in seen:
            return (
                f"{place}: {shown(name)} must be a class name of at most {LONGEST} printable characters that none"
                " before it is."
            )
        seen.add(name)
    return ""


def first_difference(names: Sequence[str], others: Sequence[str]) -> tuple[int, str, str]:
    """Where two lists of class names differ first: the place, from 1, and both names as a sentence can show them.

    Names that look alike are shown as ASCII, with escapes. A list that has no such place has an empty name there.
    """
    pairs = enumerate(itertools.zip_longest(names, others), 1)
    place, pair = next(((place, pair) for place, pair in pairs if pair[0] != pair[1]), (0, (None, None)))
    write = ascii if None not in pair and _look_alike(*map(str, pair)) else repr
    one, other = ("" if name is None else one_line(write(name)) for name in pair)
    return place, one, other


def _look_alike(one: str, other: str) -> bool:
    """Whether a reader may take one for the other: the same letters composed otherwise, or of another alphabet."""
    one, other = (unicodedata.normalize("NFKC", " ".join(text.split())) for text in (one, other))
    return one == other or (len(one) == len(other) and one.isascii() != other.isascii())


def read_keys(path: Path) -> np.ndarray:
    """A key list as (n,) bytes; an empty file is an empty list."""
    data = read_text(path)
    if not data:
        return np.empty(0, "S1")
    text = np.frombuffer(data, np.uint8)
    separators = np.flatnonzero(text <= SPACE)
    wrong = np.flatnonzero(text[separators] != NEWLINE)
    if wrong.size:
        _refuse_line(path, data, int(separators[wrong[0]]), "one key and nothing else")
    return _cut_keys(path, data, _after(separators), np.append(separators, len(data)))


def read_labels(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A label file as keys (n,) bytes and labels (n,) int32, in the file's order."""
    data = read_text(path)
    if not data:
        return np.empty(0, "S1"), np.empty(0, np.int32)
    text = np.frombuffer(data, np.uint8)
    allowed = f"a key, one space and a label from 0 to {num_classes - 1}"
    # A well-formed file has one space in each line, a newline between lines, and no other blank or control byte.
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


def read_text(path: Path) -> bytes:
    """A text file with LF line ends, no byte order mark and no final newline."""
    try:
        if path.is_fifo() or path.is_char_device() or path.is_socket():  # reading might wait for ever
            raise DataError(f"{path} is no regular file; it must be a readable text file.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; it is part of the release.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; it must be a readable text file.") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    return data.removesuffix(b"\n")


def _after(separators: np.ndarray) -> np.ndarray:
    """Where lines start, given where the lines before them end."""
    return np.concatenate([np.zeros(1, np.int64), separators + 1])


def _cut_keys(path: Path, data: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The keys at data[starts:ends] as (n,) bytes."""
    allowed = f"a key that starts with images/ and has at most {MAX_KEY_BYTES} bytes"
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


def unique_order(keys: np.ndarray, path: Path) -> np.ndarray:
    """The order that sorts `keys`; refuses duplicates."""
    if (keys[1:] > keys[:-1]).all():  # the released lists are sorted already
        return np.arange(len(keys))
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if twice.size:
        line = int(order[twice + 1].min())
        first = int(np.flatnonzero(keys == keys[line])[0])
        raise DataError(
            f"{path}, line {line + 1}: {show(keys[line])} is in line {first + 1} already; a key must appear once."
        )
    return order


def find(keys: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `keys` in `table` and whether they are there; both are sorted, which keeps the search in cache."""
    rows = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return rows, table[rows] == keys


def _refuse_line(path: Path, data: bytes, position: int, allowed: str) -> NoReturn:
    """Raise for the line of `data` that holds byte `position`."""
    start = data.rfind(b"\n", 0, position) + 1
    end = data.find(b"\n", position)
    line = data[start : end if end >= 0 else len(data)]
    text = show(line[:80]) + ("..." if len(line) > 80 else "")
    raise DataError(f"{path}, line {data.count(NEWLINE, 0, start) + 1} is {text!r}; it must be {allowed}.")


def show(text: bytes) -> str:
    """Any bytes as text for a message."""
    return bytes(text).decode("utf-8", "backslashreplace")
