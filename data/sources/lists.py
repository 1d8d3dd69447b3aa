"""What readers of published datasets share: where a dataset was unpacked, and the lines of its text files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from data.errors import DataError
from data.layout.key_files import read_text
from data.sources.source import Source
from data.text import shown

MOST_BYTES = 255  # of the name of a file or folder


def find_base(folder: Path, wanted: Sequence[str], dataset: str) -> Path:
    """The folder of a dataset, which may be `folder` itself, at most two levels below it, or, if `folder` is one of
    its parts, above it.

    Args:
        folder: Where somebody says that the dataset is.
        wanted: Paths that must be in it.
        dataset: Its name, for messages.

    Raises:
        DataError: There is none, or there are several.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where a path is too long)
        raise DataError(f"{folder} is not a folder; it must be the one that holds {dataset}.")
    is_part = folder.absolute().name in {one.partition("/")[0] for one in wanted}
    near = [folder, *([folder.absolute().parent] if is_part else [])]
    levels = [near, below := _folders(folder), [one for inner in below for one in _folders(inner)]]
    for level in levels:
        found = [place for place in level if _has(place, wanted) == len(wanted)]
        if len(found) > 1:
            raise DataError(f"{folder} holds {dataset} twice, in {found[0]} and {found[1]}; give one of them.")
        if found:
            return found[0]
    place = max((place for level in levels for place in level), key=lambda place: _has(place, wanted))
    missing = [name for name in wanted if not os.path.exists(place / name)]  # noqa: PTH110 (as above)
    raise DataError(f"{place} has no {missing[0]}; the folder of {dataset} must hold {' and '.join(wanted)}.")


def _has(place: Path, wanted: Sequence[str]) -> int:
    return sum(os.path.exists(place / name) for name in wanted)  # noqa: PTH110 (as above)


def _folders(folder: Path) -> list[Path]:
    """Those in a folder, without hidden ones and what archivers make; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if one.is_dir() and not one.name.startswith((".", "__MACOSX"))]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1; a byte order mark and CRLF do not matter.

    Raises:
        DataError: The file is missing, no regular file, not UTF-8, or has no such line.
    """
    data = read_text(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; it must be as released.") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty; it must have at least one line.")
    return lines


def without_header(path: Path, lines: list[tuple[int, str]], header: str) -> list[tuple[int, str]]:
    """Lines after the first one, which must begin with `header`: otherwise an image would be lost.

    Raises:
        DataError: It does not, or nothing follows it.
    """
    number, line = lines[0]
    if not line.startswith(header):
        refuse_line(path, number, line, f"a header that begins with {header}")
    if len(lines) == 1:
        raise DataError(f"{path} has nothing but a header; it must have at least one line after it.")
    return lines[1:]


def is_plain_path(text: str) -> bool:
    """Whether a path of a list stays below the folder that it is relative to, and can be a path at all."""
    parts = text.split("/")
    return text.isprintable() and all(
        part not in ("", ".", "..") and len(part.encode("utf-8", "surrogateescape")) <= MOST_BYTES for part in parts
    )


def refuse_line(path: Path, number: int, line: str, allowed: str) -> NoReturn:
    raise DataError(f"{path}, line {number} is {shown(line)}; it must be {allowed}.")


def other_counts(source: Source, dataset: str, published: Mapping[str, int]) -> str:
    """What to say if lists have other lengths than the published ones, as after half a download; empty if not."""
    counts = {name: len(source.splits[name]) if name in source.splits else 0 for name in published}
    if counts == published:
        return ""
    here = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    there = ", ".join(f"{count:,} {name}" for name, count in published.items())
    return f"{dataset} has {there}; here are {here}."
