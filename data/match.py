"""A release of links, in which every image has the name of its key, for a copy whose names differ in case or suffix."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.alike import is_image, loosely
from data.layout.finding import CATEGORIES, TEXT_FILES, TEXT_FOLDERS, TRUE_LABELS, WRONG_LABELS, find_layout
from data.layout.groups import GROUP_NAMES, GROUPS
from data.layout.index import read_index
from data.layout.key_files import PREFIX, read_class_names, show
from data.layout.walk import files_below
from data.layout.writer import CATEGORIES_CHN
from data.stores.pack import is_pack
from data.whole_folders import complete_or_absent


@dataclass(frozen=True)
class Matched:
    """What was matched.

    Attributes:
        images: Number of images.
        renamed: How many of them have another name than their key.
    """

    images: int
    renamed: int


def match_names(root: Path, out: Path) -> Matched:
    """Write text files, and for each key a link to the file that has its name, whatever its case and suffix.

    Args:
        root: A folder in the released layout. Nothing in it is changed, and `out` needs it.
        out: A folder that does not exist yet, or an empty one, outside `root`.

    Raises:
        DataError: An image has no such file, or several; all have the right names already; `root` is no release, or
            `out` is in the way.
    """
    if is_pack(root):
        raise DataError(f"{root} is a pack, whose images have no names but their keys; it must be a folder.")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"--out is {out}, which is inside {root}; it must be elsewhere.")
    layout = find_layout(root)
    index = read_index(layout.text, len(read_class_names(layout.text / CATEGORIES)))
    skipped = {os.fsencode(name) for name in TEXT_FOLDERS} if layout.images == root else set()
    files = files_below(os.fsencode(layout.images), lambda folder: folder not in skipped)
    found = _found(np.unique(index.keys).tolist(), files, layout.images)
    renamed = sum(key.removeprefix(PREFIX) != path for key, path in found.items())
    if not renamed:
        raise DataError(f"{root} has every image under the name of its key already; there is nothing to match.")
    images = os.fsencode(layout.images.resolve())
    with complete_or_absent(out) as target:
        for name in (*TEXT_FILES, CATEGORIES_CHN, TRUE_LABELS, WRONG_LABELS, GROUPS, GROUP_NAMES):
            if (layout.text / name).exists():
                shutil.copyfile(layout.text / name, target / name)
        for folder in {os.fsdecode(key.rpartition(b"/")[0]) for key in found}:
            (target / folder).mkdir(parents=True, exist_ok=True)
        top = os.fsencode(target)
        for key, path in found.items():
            os.symlink(images + b"/" + path, top + b"/" + key)  # noqa: PTH211 (bytes, a million times)
    return Matched(len(found), renamed)


def _found(keys: list[bytes], files: Iterable[bytes], images: Path) -> dict[bytes, bytes]:
    """The file of each key, relative to `images`."""
    there: set[bytes] = set()
    alike: dict[bytes, list[bytes]] = {}
    for path in files:
        there.add(path)
        if is_image(path):
            alike.setdefault(loosely(path), []).append(path)
    found, missing = {}, []
    for key in keys:
        path = key.removeprefix(PREFIX)
        candidates = [path] if path in there else alike.get(loosely(path), [])
        if len(candidates) > 1:
            shown = " and ".join(str(images / os.fsdecode(one)) for one in candidates[:2])
            raise DataError(f"{shown} could both be image {show(key)}; only one of them may be there.")
        if candidates:
            found[key] = candidates[0]
        else:
            missing.append(key)
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(keys):,} images have no file below {images}, whatever its case and suffix, the"
            f" first {show(missing[0])}; `python -m data check` names them all."
        )
    return found
