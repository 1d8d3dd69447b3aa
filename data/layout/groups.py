"""Whom or where images come from, such as their photographer, site or writer: two text files that are this app's own.

``group_kv.txt`` has a key, a space and the number of its group in each line, for images of any list; an image that it
leaves out belongs to no group. ``group_names.txt`` has the groups' names, one per line, in the order of their numbers.
A release has both files, or neither.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.key_files import read_name_lines
from data.text import LONGEST, shown

GROUPS = "group_kv.txt"
GROUP_NAMES = "group_names.txt"
MOST_GROUPS = 1_000_000


def read_group_names(path: Path) -> tuple[str, ...]:
    """The names of the groups, in the order of their numbers.

    Raises:
        DataError: The file is missing, empty or no text, or what `problem_of_group_names` has against a line.
    """
    names = read_name_lines(path, "group", MOST_GROUPS)
    if problem := problem_of_group_names(names):
        raise DataError(f"{path}, line {problem}")
    return tuple(names)


def problem_of_group_names(names: Sequence[str]) -> str:
    """The place, from 1, of the first name that no group can have, and what it must be; empty if there is none."""
    if len(names) > MOST_GROUPS:
        return f"{MOST_GROUPS + 1}: there must be at most {MOST_GROUPS:,} groups."
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > LONGEST or name in seen:
            return (
                f"{place}: {shown(name)} must be a group name of at most {LONGEST} printable characters that none"
                " before it is, without blanks around it."
            )
        seen.add(name)
    return ""


def names_to_text(names: Sequence[str]) -> str:
    """As the metadata of a file can hold them; `names_from_text` reads it."""
    return json.dumps(list(names), ensure_ascii=False)


def names_from_text(text: str) -> tuple[str, ...]:
    """What `names_to_text` made.

    Raises:
        ValueError: It is no list of group names.
    """
    try:
        names = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("no list of names")
    if problem := problem_of_group_names(names):
        raise ValueError(problem)
    return tuple(names)


def groups_of_list(groups: np.ndarray | None, rows: slice) -> np.ndarray | None:
    """Those of one list, (n,) int32; None if none of its images has one."""
    if groups is None or not (groups[rows] >= 0).any():
        return None
    return np.asarray(groups[rows], np.int32)
