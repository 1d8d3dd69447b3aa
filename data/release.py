"""The released text files as arrays of keys and labels.

Read once per split, vectorised: the full release (1,000,000 + 72,409 keys) takes about two seconds and no Python
object per key. Labels are looked up by key, because the label files are shuffled and cover more than the lists.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.key_files import PREFIX, find, read_class_names, read_keys, read_labels, show, unique_order
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

PRESENCE_SAMPLE = 200  # keys whose images are looked for when a split is first read
MINI_SEED = 13  # of the notebook (Sprinter1999/Clothing1M_FedAvg), whose debug switch keeps a random tenth


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
        rows, found = find(clean_keys, noisy_keys)
        return clean_keys[found], clean[found], noisy[rows[found]]

    def _read_split(self, name: str) -> Split:
        label_file = NOISY_LABELS if name == "noisy_train" else CLEAN_LABELS
        path = self.text / LIST_FILES[name]
        table_keys, table_labels = self._labels(label_file)
        keys = read_keys(path)
        order = unique_order(keys, path)
        rows, found = find(keys[order], table_keys)
        if not found.all():
            line = int(order[~found].min())
            raise DataError(
                f"{path}, line {line + 1}: {show(keys[line])} has no label; it must have one in"
                f" {self.text / label_file}."
            )
        labels = np.empty(len(keys), np.int32)
        labels[order] = table_labels[rows]
        return Split(name, keys, labels)

    def _labels(self, file: str) -> tuple[np.ndarray, np.ndarray]:
        """One label file as keys (n,) in byte order and their labels (n,) int32."""
        keys, labels = read_labels(self.text / file, len(self.class_names))
        order = unique_order(keys, self.text / file)
        return keys[order], labels[order]

    def _check_presence(self, split: Split) -> None:
        """Look for the images of a few evenly spaced keys, to fail before training rather than in it."""
        rows = np.linspace(0, len(split.keys) - 1, min(len(split.keys), PRESENCE_SAMPLE)).astype(np.int64)
        missing = [key for key in split.keys[rows] if not self._present(key)]
        if not missing:
            return
        key, path = show(missing[0]), self.image_path(missing[0])
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
    return Release(root, read_class_names(layout.text / CATEGORIES), layout.text, layout.images)


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
