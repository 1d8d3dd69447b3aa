"""Everything wrong with the text files of a release, not just the first problem."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.check.findings import Findings
from data.errors import DataError
from data.layout.finding import (
    CLEAN_LABELS,
    LABEL_FILES,
    LIST_FILES,
    NOISY_LABELS,
    TRUE_LABELS,
    WRONG_LABELS,
    text_files,
)
from data.layout.groups import GROUP_NAMES, GROUPS, read_group_names
from data.layout.key_files import MAX_KEY_BYTES, read_keys, read_labels, read_text, show, unique_order
from data.layout.missing import WITHOUT

KEY = re.compile(rb"images/[^\x00-\x20]{1,%d}" % (MAX_KEY_BYTES - 7))
NUMBER = re.compile(rb"[0-9]{1,9}")
Table = tuple[np.ndarray, np.ndarray]


def check_text(text: Path, num_classes: int, findings: Findings) -> dict[str, np.ndarray]:
    """Read all lists and label files, continuing past whatever is wrong in them.

    Args:
        text: The folder of the text files.
        num_classes: Labels go from 0 to one less.
        findings: Gains malformed lines, labels out of range, duplicate keys, keys in two lists, keys without label,
            lists that are empty or missing, and what is odd about the list of labels known to be wrong.

    Returns:
        The good keys of each list, each key once in each list, (n,) bytes in byte order.
    """
    there = text_files(text) | ({TRUE_LABELS} if (text / TRUE_LABELS).exists() else set())
    labels = (NOISY_LABELS, CLEAN_LABELS, TRUE_LABELS)
    tables = {file: _labels(text / file, num_classes, findings) for file in labels if file in there}
    _check_groups(text, findings)
    lists = dict.fromkeys(LIST_FILES, np.empty(0, "S1"))
    for split, file in LIST_FILES.items():
        if file not in there:
            findings.add("missing list", file, WITHOUT[split])
            continue
        lists[split] = _keys(text / file, findings)
        if not len(lists[split]):
            findings.add("empty list", str(text / file), "must have at least one key")
        needed = LABEL_FILES[split]
        for key in lists[split][~np.isin(lists[split], tables[needed])]:
            findings.add("key without label", show(key), f"listed in {file}, not in {needed}")
    for one, other in itertools.combinations(lists, 2):
        for key in np.intersect1d(lists[one], lists[other], assume_unique=True):
            findings.add("key in two lists", show(key), f"{LIST_FILES[one]} and {LIST_FILES[other]}")
    if (text / WRONG_LABELS).exists():
        _check_wrong(text, lists["noisy_train"], tables, findings)
    return lists


def _check_groups(text: Path, findings: Findings) -> None:
    """The two files of groups, where there is one of them."""
    if not (text / GROUPS).exists() and not (text / GROUP_NAMES).exists():
        return
    try:
        names = read_group_names(text / GROUP_NAMES)
        _labels(text / GROUPS, len(names), findings)
    except DataError as error:
        findings.add("refused", str(text / GROUP_NAMES), str(error))


def _check_wrong(text: Path, noisy_train: np.ndarray, tables: dict[str, np.ndarray], findings: Findings) -> None:
    """`WRONG_LABELS` may cover more than noisy train, but no image of which more is known."""
    wrong = _keys(text / WRONG_LABELS, findings)
    listed = np.isin(wrong, noisy_train)
    for key in wrong[~listed]:
        findings.add("unlisted key", show(key), f"in {WRONG_LABELS}, not in {LIST_FILES['noisy_train']}")
    for file in (TRUE_LABELS, CLEAN_LABELS):
        for key in wrong[listed & np.isin(wrong, tables.get(file, wrong[:0]))]:
            findings.add("true label of a wrong one", show(key), f"in {WRONG_LABELS}, and has a label in {file}")


def _keys(path: Path, findings: Findings) -> np.ndarray:
    try:
        keys = read_keys(path)
        unique_order(keys, path)
    except DataError:  # something is wrong with it: look at each line
        found = []
        for number, line in _lines(path):
            if problem := _key_problem(line):
                findings.add("malformed line", f"{path}, line {number}", f"{show(line[:80])!r} {problem}")
            else:
                found.append(line)
        keys = _once(np.array(found, bytes), path, findings)
    return np.sort(keys)


def _labels(path: Path, num_classes: int, findings: Findings) -> np.ndarray:
    """The keys of a label file, each once, in byte order."""
    try:
        keys, _ = read_labels(path, num_classes)
        unique_order(keys, path)
    except DataError:
        found = []
        for number, line in _lines(path):
            key, space, label = line.partition(b" ")
            place = f"{path}, line {number}"
            if problem := _key_problem(key):
                findings.add("malformed line", place, f"{show(line[:80])!r} {problem}")
            elif not space or not NUMBER.fullmatch(label):
                findings.add("malformed line", place, f"{show(line[:80])!r} is not a key, one space and a label")
            elif int(label) >= num_classes:
                findings.add("label out of range", place, f"{show(key)} has {int(label)}; 0 to {num_classes - 1} exist")
            else:
                found.append(key)
        keys = _once(np.array(found, bytes), path, findings)
    return np.sort(keys)


def _key_problem(key: bytes) -> str | None:
    if not KEY.fullmatch(key):
        return f"is not a key that starts with images/ and has at most {MAX_KEY_BYTES} bytes"
    if b"/.." in key or b"//" in key:
        return "leads out of the release"
    return None


def _once(keys: np.ndarray, path: Path, findings: Findings) -> np.ndarray:
    """`keys` without duplicates, in byte order."""
    unique, counts = np.unique(keys, return_counts=True)
    for key, count in zip(unique[counts > 1], counts[counts > 1], strict=True):
        findings.add("duplicate key", show(key), f"{count} times in {path.name}")
    return unique


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, cut where the reader cuts them; an empty file has none."""
    data = read_text(path)
    return enumerate(data.split(b"\n"), 1) if data else iter(())
