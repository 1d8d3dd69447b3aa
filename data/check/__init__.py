"""Is this copy of Clothing1M complete and sound? Checks all that can be checked without training on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.check.findings import Findings
from data.check.images import check_images
from data.check.text import check_text
from data.check.tree import check_tree
from data.errors import DataError
from data.layout.finding import CATEGORIES, LIST_FILES, SPLITS, find_layout, is_class_folder
from data.layout.key_files import read_class_names
from data.layout.missing import WITHOUT
from data.outputs import check_output
from data.release import open_release
from data.stores.class_folder import ClassFolderStore
from data.stores.folder import FolderStore, Store
from data.stores.pack import PackStore, is_pack, open_pack
from data.text import printable

# Sizes of the lists released by Xiao et al. (CVPR 2015); data/README.md has them as a table.
PUBLISHED = {"noisy_train": 1_000_000, "clean_train": 47_570, "clean_val": 14_313, "clean_test": 10_526}


@dataclass
class Check:
    """A check that has read text and folders, and is about to decode images.

    Attributes:
        findings: Those so far.
        lists: Keys of each list, (n,) bytes in byte order.
        present: (n,) keys whose images are there.
    """

    findings: Findings
    lists: Mapping[str, np.ndarray]
    present: np.ndarray
    _store: Store

    def images(self, journal: Path, threads: int, progress: Callable[[int], None] | None = None) -> None:
        """Decode every image, see `data.check.images`.

        Raises:
            DataError: The journal cannot be written.
        """
        check_output(journal, "the record of progress")
        try:
            check_images(self._store, self.lists, self.present, journal, threads, self.findings, progress)
        except OSError as error:
            raise DataError(f"{journal} cannot be written: {error.strerror}; give another --out.") from None


def begin_check(root: Path) -> Check:
    """Check text files and folders of a release, or the index of a pack or of a folder of photos per class.

    A list that is missing is a note, which says what needs it.

    Raises:
        DataError: `root` is not a release at all, or its category file is malformed.
    """
    findings = Findings()
    if is_pack(root):
        return _begin_with(open_pack(root), findings)
    if is_class_folder(root):
        photos = ClassFolderStore(root, turned=False)
        for path, why in photos.left_out:
            findings.add("stray file", printable(path), why)
        return _begin_with(photos, findings)
    layout = find_layout(root)
    try:
        lists = check_text(layout.text, len(read_class_names(layout.text / CATEGORIES)), findings)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; it must be a readable file.") from None
    _compare_counts(lists, findings)
    present = check_tree(root, layout.images, lists, findings)
    _ask_the_reader(root, findings)
    return Check(findings, lists, present, FolderStore(root, layout.images))


def _begin_with(store: PackStore | ClassFolderStore, findings: Findings) -> Check:
    """Where nothing is left to find but in images."""
    lists = {split: np.sort(store.index.keys[store.index.rows(split)]) for split in SPLITS}
    for split, keys in lists.items():
        if not len(keys):
            findings.add("missing list", LIST_FILES[split], WITHOUT[split])
    _compare_counts(lists, findings)
    return Check(findings, lists, np.unique(np.concatenate(list(lists.values()))), store)


def _ask_the_reader(root: Path, findings: Findings) -> None:
    """What a run would refuse is a problem, also if nothing that was looked for explains it."""
    try:
        release = open_release(root)
        for split in SPLITS:
            if release.has(split):
                release.split(split)
    except DataError as error:
        if not findings.num_problems:
            findings.add("refused", str(root), str(error))


def _compare_counts(lists: Mapping[str, np.ndarray], findings: Findings) -> None:
    """Expect the published counts of what is recognisably Clothing1M: one count is right, or half a million images."""
    counts = {split: len(keys) for split, keys in lists.items() if len(keys)}
    is_clothing1m = len(lists["noisy_train"]) > PUBLISHED["noisy_train"] // 2
    is_clothing1m |= any(count == PUBLISHED[split] for split, count in counts.items())
    if not is_clothing1m:
        shown = ", ".join(f"{count:,} {split}" for split, count in counts.items())
        findings.add("other data", shown, "not Clothing1M's counts; a sample or another dataset")
        return
    for split, count in counts.items():
        if count != PUBLISHED[split]:
            findings.add("count", split, f"{count:,} good keys; Clothing1M has {PUBLISHED[split]:,}")
