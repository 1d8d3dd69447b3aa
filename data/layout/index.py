"""Keys and labels of a release as compact arrays, with a cache on disk.

Reading two million lines takes about two seconds, which every Ray actor and, in deployment, every message would pay.
The arrays are therefore kept in the user's cache folder and mapped from there until one of the text files changes.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from data.errors import DataError
from data.layout.finding import (
    CLEAN_LABELS,
    LABEL_FILES,
    LIST_FILES,
    NOISY_LABELS,
    SPLITS,
    TEXT_FILES,
    TRUE_LABELS,
    WRONG,
    WRONG_LABELS,
    text_files,
)
from data.layout.groups import GROUP_NAMES, GROUPS, names_from_text, names_to_text, read_group_names
from data.layout.key_files import MAX_CLASSES, find, read_keys, read_labels, show, unique_order
from data.tensors import map_tensors
from data.user_cache import cache_folder

VERSION = "2"  # of the arrays below; another version is read anew
SETTLED = 2.0  # seconds; a file changed more recently could change again unnoticed; git's index has the same rule


@dataclass(frozen=True)
class Index:
    """Every image of a release: the four lists one after another, each in its own order.

    Attributes:
        keys: (n,) bytes, dtype ``S<m>``.
        noisy: (n,) int16 noisy label, -1 where an image carries none.
        clean: (n,) int16 clean label, likewise.
        true: (n,) int16 what the image shows, as far as anybody knows: the clean label, or the one of a drawn or
            imported image; -1 where it is unknown, `WRONG` where no more is known than that the noisy label is wrong.
        counts: Images of each of `SPLITS`, 0 for a list that is missing or empty.
        stamp: Changes when the lists do.
        group: (n,) int32 number of whom or where an image comes from, -1 where that is unknown; None if the release
            has no groups.
        group_names: By their numbers; empty if there are none.
    """

    keys: np.ndarray
    noisy: np.ndarray
    clean: np.ndarray
    true: np.ndarray
    counts: tuple[int, ...]
    stamp: str
    group: np.ndarray | None = None
    group_names: tuple[str, ...] = ()

    def rows(self, split: str) -> slice:
        """Where the images of one list are."""
        start = sum(self.counts[: SPLITS.index(split)])
        return slice(start, start + self.counts[SPLITS.index(split)])

    def to_tensors(self) -> dict[str, np.ndarray]:
        """The arrays in a form that safetensors can hold: keys become (n, m) uint8."""
        keys = np.ascontiguousarray(self.keys)
        return {
            "keys": keys.view(np.uint8).reshape(len(keys), keys.dtype.itemsize),
            "noisy": self.noisy,
            "clean": self.clean,
            "true": self.true,
            "counts": np.array(self.counts, np.int64),
            **({} if self.group is None else {"group": self.group}),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], stamp: str, group_names: tuple[str, ...] = ()) -> "Index":
        """The inverse of `to_tensors`.

        Raises:
            ValueError: Arrays are missing or do not match.
        """
        try:
            keys, noisy, clean, true, counts = (tensors[name] for name in ("keys", "noisy", "clean", "true", "counts"))
            names = keys.view(f"S{keys.shape[1]}")[:, 0]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError("arrays are missing") from error
        if len(counts) != len(SPLITS) or not (len(names) == len(noisy) == len(clean) == len(true) == counts.sum()):
            raise ValueError("arrays differ in length")
        group = tensors.get("group")
        if (group is None) != (not group_names) or (group is not None and len(group) != len(names)):
            raise ValueError("groups do not match")
        return cls(names, noisy, clean, true, tuple(map(int, counts)), stamp, group, group_names)


def read_index(text: Path, num_classes: int) -> Index:
    """The index of the text files in `text`: from the cache, or read and then cached.

    Raises:
        DataError: An unreadable file, a malformed line, a key twice in a file, or a listed key without a label.
    """
    stamp = _stamp(text, num_classes)
    cached = cache_folder("index", f"{hashlib.sha256(os.fsencode(text.resolve())).hexdigest()[:16]}.safetensors")
    with contextlib.suppress(ValueError):
        metadata, tensors = map_tensors(cached)
        if metadata.get("stamp") == stamp:
            groups = metadata.get("groups")
            return Index.from_tensors(tensors, stamp, names_from_text(groups) if groups else ())
    index = build_index(text, num_classes, stamp)
    if time.time() - _last_change(text) > SETTLED and _stamp(text, num_classes) == stamp:
        _save(cached, index)
    return index


def build_index(text: Path, num_classes: int, stamp: str) -> Index:
    """Read the text files. Labels are looked up by key: label files are shuffled and cover more than the lists."""
    if num_classes > MAX_CLASSES:
        raise DataError(f"{text} has {num_classes} classes; it must have at most {MAX_CLASSES:,}.")
    there = text_files(text)
    none = np.empty(0, "S1"), np.empty(0, np.int16)
    tables = {
        name: _sorted_labels(text / name, num_classes) if name in there else none
        for name in (NOISY_LABELS, CLEAN_LABELS)
    }
    keys, noisy, clean = [], [], []
    for split, file in LIST_FILES.items():
        listed = read_keys(text / file) if file in there else none[0]
        order = unique_order(listed, text / file)
        needed = LABEL_FILES[split]
        if len(listed) and not len(tables[needed][0]):
            raise DataError(f"{text / needed} is empty; it must have at least one line.")
        found = {name: _look_up(listed, order, tables[name]) for name in tables}
        missing = np.flatnonzero(found[needed] < 0)
        if missing.size:
            line = int(missing[0])
            raise DataError(
                f"{text / file}, line {line + 1}: {show(listed[line])} has no label; it must have one in"
                f" {text / needed}."
            )
        keys.append(listed)
        noisy.append(found[NOISY_LABELS])
        clean.append(found[CLEAN_LABELS])
    del tables
    counts = tuple(map(len, keys))
    labels = np.concatenate(clean)
    true = _true(text, keys, labels, num_classes)
    return Index(np.concatenate(keys), np.concatenate(noisy), labels, true, counts, stamp, *_groups(text, keys))


def _groups(text: Path, lists: list[np.ndarray]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The group of each image, and the groups' names, where there are such files."""
    if not (text / GROUPS).exists() and not (text / GROUP_NAMES).exists():
        return None, ()
    names = read_group_names(text / GROUP_NAMES)
    keys, numbers = read_labels(text / GROUPS, len(names))
    order = unique_order(keys, text / GROUPS)
    keys, numbers = keys[order], numbers[order]
    groups = [np.full(len(listed), -1, np.int32) for listed in lists]
    for listed, found in zip(lists, groups, strict=True):
        if len(listed) and len(keys):
            rows, there = find(listed, keys)  # lists are sorted, as a rule, which keeps the search in cache
            found[there] = numbers[rows[there]]
    return np.concatenate(groups), names


def _true(text: Path, keys: list[np.ndarray], clean: np.ndarray, num_classes: int) -> np.ndarray:
    """Clean labels, and for noisy train what `TRUE_LABELS` and `WRONG_LABELS` say, which imported releases may have.

    Like label files, both may cover more than the list.
    """
    true = clean.copy()
    noisy_train = keys[SPLITS.index("noisy_train")]
    order = np.argsort(noisy_train, kind="stable")
    if (text / TRUE_LABELS).exists():
        known = _look_up(noisy_train, order, _sorted_labels(text / TRUE_LABELS, num_classes))
        true[: len(known)] = np.where(known >= 0, known, true[: len(known)])
    if (path := text / WRONG_LABELS).exists():
        wrong = read_keys(path)
        wrong = wrong[unique_order(wrong, path)]
        rows = np.flatnonzero(_look_up(noisy_train, order, (wrong, np.zeros(len(wrong), np.int16))) == 0)
        if (both := rows[true[rows] >= 0]).size:
            raise DataError(
                f"{path} has {show(noisy_train[both[0]])}, whose true label is known; it must hold only images of which"
                f" no more is known than that their label in {NOISY_LABELS} is wrong."
            )
        true[rows] = WRONG
    return true


def _sorted_labels(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """One label file as keys (n,) in byte order and their labels (n,) int16."""
    keys, labels = read_labels(path, num_classes)
    order = unique_order(keys, path)
    return keys[order], labels[order].astype(np.int16)


def _look_up(keys: np.ndarray, order: np.ndarray, table: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The label of each key, (n,) int16, -1 where the table has none."""
    labels = np.full(len(keys), -1, np.int16)
    if len(keys) and len(table[0]):
        rows, found = find(keys[order], table[0])
        labels[order[found]] = table[1][rows[found]]
    return labels


def _files(text: Path) -> list[Path]:
    return [text / name for name in (*TEXT_FILES, TRUE_LABELS, WRONG_LABELS, GROUPS, GROUP_NAMES)]


def _stamp(text: Path, num_classes: int) -> str:
    """Changes when a text file is replaced or written to: size, inode, times of content and of metadata."""
    seen = hashlib.sha256(f"{VERSION} {num_classes}".encode())
    for path in _files(text):
        with contextlib.suppress(OSError):
            status = path.stat()
            facts = (path.name, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            seen.update(repr(facts).encode())
    return seen.hexdigest()


def _last_change(text: Path) -> float:
    """When a text file last changed, in seconds since the epoch."""
    return max(path.stat().st_ctime for path in _files(text) if path.exists())


def _save(path: Path, index: Index) -> None:
    """Write the cache if space and permissions allow; otherwise the next process reads the text again."""
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / "index"
            groups = {"groups": names_to_text(index.group_names)} if index.group_names else {}
            save_file(index.to_tensors(), written, {"stamp": index.stamp, **groups})
            with written.open("rb") as file:
                os.fsync(file.fileno())  # a power failure must not leave a file of zeros under the final name
            written.replace(path)
