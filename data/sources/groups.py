"""Groups of people's own photos, such as sites or photographers, from a text file: `--groups FILE`.

Each line is the path of an image, relative to the imported folder, a tab, and the name of its group.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.groups import problem_of_group_names
from data.layout.key_files import read_text
from data.sources.source import Source
from data.text import printable, shown

LINE = "a path, a tab and the name of a group"


def with_groups(source: Source, file: Path | None) -> Source:
    """The same dataset with the groups that a file names; they are numbered in the order of their names.

    Args:
        source: A dataset whose origins are paths below its root.
        file: Has a line for each of its images; lines of other files are ignored. None: the dataset as it is.

    Raises:
        DataError: The file is unreadable or malformed, has a path twice, or lacks images.
    """
    if file is None:
        return source
    group_of = _read(file)
    origins = [origin for listed in source.splits.values() for origin in listed.origins]
    if missing := [origin for origin in origins if origin not in group_of]:
        raise DataError(
            f"{file} names no group for {len(missing):,} of {len(origins):,} images, the first"
            f" {printable(min(missing))}; each image needs a line: {LINE}."
        )
    names = tuple(sorted({group_of[origin] for origin in origins}))
    if problem := problem_of_group_names(names):
        raise DataError(f"{file} has a wrong name of a group, number {problem}")
    number_of = {name: number for number, name in enumerate(names)}

    def numbers(origins: Sequence[str]) -> np.ndarray:
        return np.array([number_of[group_of[origin]] for origin in origins], np.int64)

    splits = {name: replace(listed, groups=numbers(listed.origins)) for name, listed in source.splits.items()}
    return replace(source, splits=splits, group_names=names)


def _read(file: Path) -> dict[str, str]:
    """Group by path. Paths may have any bytes but tabs and line ends, as Python reads names of files."""
    lines = read_text(file).decode("utf-8", "surrogateescape").split("\n")
    group_of: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        path, tab, group = line.rpartition("\t")
        path, group = path.removeprefix("./"), group.strip()
        if not tab or not path or not group or not group.isprintable():
            raise DataError(f"{file}, line {number} is {shown(line)}; it must be {LINE}.")
        if path in group_of:
            raise DataError(f"{file}, line {number}: {printable(path)} is there already; a path must appear once.")
        group_of[path] = group
    return group_of
