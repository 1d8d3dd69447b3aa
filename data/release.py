"""A release: class names, the four lists with their labels, and where the images are. Start here to read one.

`open_release` opens a folder in the released layout (`data.layout.finding`), a pack of it (`data.stores.pack`), or a
folder of photos per class (`data.stores.class_folder`). `training_split` gives the list that clients share.
`data.images.loading` turns keys into pixels.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.finding import (
    CATEGORIES,
    CLEAN_LABELS,
    LIST_FILES,
    NOISY_LABELS,
    SPLITS,
    WRONG,
    find_layout,
    is_class_folder,
    text_files,
)
from data.layout.groups import groups_of_list
from data.layout.index import Index, read_index
from data.layout.key_files import read_class_names
from data.layout.missing import WITHOUT
from data.stores.folder import FolderStore, Store
from data.stores.pack import is_pack, open_pack

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

MINI_SEED = 13  # of the notebook (Sprinter1999/Clothing1M_FedAvg), whose debug switch keeps a random tenth


@dataclass(frozen=True)
class Split:
    """One list of images, in the list's order, or a part of it.

    Attributes:
        name: One of `SPLITS`, or ``noisy_train_mini``.
        keys: (n,) bytes, dtype ``S<m>``, such as ``b"images/7/88/314159265,2718281788.jpg"``.
        labels: (n,) int32, the label that training sees: noisy for noisy train, clean for the three clean lists.
        true: (n,) int32, the class that an image shows, for scoring only; -1 where nobody knows, and
            `data.layout.finding.WRONG` where no more is known than that its label is wrong.
        groups: (n,) int32, the number in `Release.group_names` of whom or where an image comes from, -1 where that is
            unknown; None if it is of all of them.
    """

    name: str
    keys: np.ndarray
    labels: np.ndarray
    true: np.ndarray
    groups: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Split":
        """The images at `rows`."""
        groups = None if self.groups is None else self.groups[rows]
        return Split(self.name, self.keys[rows], self.labels[rows], self.true[rows], groups)

    @property
    def digest(self) -> str:
        """16 hex digits over keys and labels in their order."""
        digest = hashlib.sha256(b"\n".join(self.keys.tolist()))
        digest.update(np.ascontiguousarray(self.labels, dtype="<i4").tobytes())
        return digest.hexdigest()[:16]

    def with_labels(self, labels: np.ndarray) -> "Split":
        """The same images with other labels; `true` and `groups` stay.

        Where no more was known than that a label is wrong, nothing is known of another one in its place.
        """
        lost = (self.true == WRONG) & (labels != self.labels)
        return replace(self, labels=labels, true=np.where(lost, np.int32(-1), self.true))


@dataclass(frozen=True)
class Release:
    """A folder in the released layout, a pack of one, or a folder of photos per class.

    Each list may be missing or empty, though not all. Splits are read once and kept: treat them as read-only.

    Attributes:
        root: The folder or file as it was given.
        class_names: In the order of their labels; as many as the category file has lines.
        text: The folder of the text files; for a pack and a folder per class, `root`.
        store: Where the images are.
    """

    root: Path
    class_names: tuple[str, ...]
    text: Path
    store: Store
    _index: Index | None = field(default=None, compare=False, repr=False)
    _splits: dict[str, Split] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def index(self) -> Index:
        """Keys and labels of all images, read when first asked for.

        Raises:
            DataError: What `data.layout.index.read_index` refuses.
        """
        return self._index or read_index(self.text, len(self.class_names))

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of whom or where images come from, by their numbers; empty if the release has no groups.

        Raises:
            DataError: What `index` refuses.
        """
        return self.index.group_names

    def has(self, name: str) -> bool:
        """Whether one of `SPLITS` has any image.

        Raises:
            DataError: What `index` refuses.
        """
        return self.index.counts[SPLITS.index(name)] > 0

    def split(self, name: str) -> Split:
        """Keys and labels of one of `SPLITS`.

        Raises:
            DataError: An unknown name, a missing or empty list (the sentence says what needs it), missing images among
                the 200 looked for, or what `index` refuses.
        """
        if name not in LIST_FILES:
            raise DataError(f"there is no split '{name}'; it must be one of {', '.join(SPLITS)}.")
        if name not in self._splits:
            if not self.has(name):
                raise DataError(self._without(name))
            rows = self.index.rows(name)
            keys = self.index.keys[rows]
            self.store.check_presence(keys, LIST_FILES[name])
            labels = self.index.noisy if name == "noisy_train" else self.index.clean
            true = self.index.true[rows].astype(np.int32)
            groups = groups_of_list(self.index.group, rows)
            self._splits[name] = Split(name, keys, labels[rows].astype(np.int32), true, groups)
        return self._splits[name]

    def _without(self, name: str) -> str:
        file = LIST_FILES[name]
        what = f"{self.text / file} is empty" if file in text_files(self.text) else f"{self.text} has no {file}"
        return f"{what}; {WITHOUT[name]}."

    def identity(self, split: Split) -> str:
        """16 hex digits that two holders of different images do not share.

        Keys of the released layout belong to one image in the world. Photos in folders have whatever names their
        cameras gave them, so what is in the files counts as well.
        """
        contents = getattr(self.store, "contents", None)
        if contents is None or not (seen := contents(split.keys)):
            return split.digest
        return hashlib.sha256(split.digest.encode() + seen).hexdigest()[:16]

    def double_labelled(self, splits: Iterable[str] = SPLITS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The listed images that carry both labels, 37,497 in the full release, none of them in noisy train.

        Args:
            splits: The lists to look in, some of `SPLITS`; without ``clean_test`` for anything that is learned from.

        Returns:
            Keys (n,) bytes, clean labels (n,) int32, noisy labels (n,) int32.

        Raises:
            DataError: What `index` refuses.
        """
        listed = np.zeros(len(self.index.keys), bool)
        for split in splits:
            listed[self.index.rows(split)] = True
        both = np.flatnonzero(listed & (self.index.clean >= 0) & (self.index.noisy >= 0))
        clean, noisy = (labels[both].astype(np.int32) for labels in (self.index.clean, self.index.noisy))
        return self.index.keys[both], clean, noisy


def open_release(root: Path) -> Release:
    """Open a folder in the released layout, one of its common variants (data/README.md lists them), a pack, or a folder
    that holds one folder of photos per class: all of them are noisy train then.

    Reads the class names only; a pack's index is checked as well, and of photos all names are read.

    Raises:
        DataError: The folder is not a release (the message names what it is), the category file is malformed, or the
            pack is damaged.
    """
    if is_pack(root):
        pack = open_pack(root)
        return Release(root, pack.class_names, root, pack, pack.index)
    if is_class_folder(root):
        from data.stores.class_folder import ClassFolderStore  # which needs decoders, as nothing else here does

        photos = ClassFolderStore(root)
        return Release(root, photos.class_names, root, photos, photos.index)
    layout = find_layout(root)
    return Release(root, read_class_names(layout.text / CATEGORIES), layout.text, FolderStore(root, layout.images))


def training_split(release: Release, name: str) -> Split:
    """The list that is divided among the clients.

    Args:
        release: Where to read from.
        name: A key of `TRAIN_SPLITS`.

    Raises:
        DataError: An unknown name, or whatever `Release.split` refuses.
    """
    if name not in TRAIN_SPLITS:
        raise DataError(f"there is no training split '{name}'; it must be one of {', '.join(TRAIN_SPLITS)}.")
    return TRAIN_SPLITS[name](release)


def _noisy_mini(release: Release) -> Split:
    """A tenth of noisy train, the same for every run and seed, in the list's order, at least one image."""
    full = release.split("noisy_train")
    count = max(1, len(full.keys) // 10)
    rows = np.sort(np.random.default_rng(MINI_SEED).permutation(len(full.keys))[:count])
    return replace(full.take(rows), name="noisy_train_mini")


TRAIN_LISTS = {"noisy": "noisy_train", "noisy-mini": "noisy_train", "clean": "clean_train"}  # that these are parts of
# `config.choices` has the same names.
TRAIN_SPLITS: dict[str, Callable[[Release], Split]] = {
    "noisy": lambda release: release.split("noisy_train"),
    "noisy-mini": _noisy_mini,
    "clean": lambda release: release.split("clean_train"),
}
