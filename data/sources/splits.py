"""Photos of people's own that they have divided themselves: a folder for each list, with one subfolder per class."""

import contextlib
import difflib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.images.formats import read_suffixes
from data.layout.finding import SPLITS
from data.layout.writer import draw_keys
from data.photo_folders import Photos, find_photos
from data.sources.source import Listed, Source, files_below
from data.text import one_line, shown

PURPOSE = 0x73706C69  # "spli": keys are drawn apart from everything else that a folder's names decide
FLAGS = {"noisy_train": "--noisy-train", "clean_train": "--clean-train", "clean_val": "--val", "clean_test": "--test"}


def read_splits(folder: Path, named: Mapping[str, Path] | None = None) -> Source:
    """Labels of noisy train are its folders', which may be wrong: nobody knows its true classes.

    Args:
        folder: Holds ``noisy_train``, and any of ``clean_train``, ``clean_val``, ``clean_test``.
        named: By list, other folders, as paths in `folder` or absolute ones; if there are any, no others are looked
            for.

    Raises:
        DataError: There is no folder for noisy train; one is in another; a clean list has a class that noisy train
            lacks; or what `data.photo_folders.find_photos` refuses.
    """
    folders = _folders(folder, named or {})
    found = {split: find_photos(place, frozenset(read_suffixes()), least=0) for split, place in folders.items()}
    classes = tuple(found["noisy_train"].classes)
    for split, photos in found.items():
        if unknown := [name for name in photos.classes if name not in classes]:
            like = difflib.get_close_matches(unknown[0], classes, 1)
            raise DataError(
                f"{folders[split]} has the class {shown(unknown[0])}, which {folders['noisy_train']} lacks"
                + (f" (it has {shown(like[0])})" if like else "")
                + "; every class must be one of noisy train's, where its folder may be empty."
            )
    origins = {split: _origins(photos, folder) for split, photos in found.items()}
    keys = iter(_keys(folder, [origin for one in origins.values() for origin in one]))
    splits = {}
    for split, photos in found.items():
        counts = [len(photos.classes.get(name, ())) for name in classes]
        labels = np.repeat(np.arange(len(classes)), counts)
        nobody = np.full_like(labels, -1)
        true, noisy = (nobody, labels) if split == "noisy_train" else (labels, nobody)
        splits[split] = Listed(origins[split], [next(keys) for _ in origins[split]], true, noisy)
    left_out = [one for photos in found.values() for one in photos.left_out]
    left_out += [(folder / name, "in no list") for name in ([] if named else _names(folder)) if name not in SPLITS]
    return Source(folder, classes, splits, files_below(folder), left_out, own=True)


def _folders(folder: Path, named: Mapping[str, Path]) -> dict[str, Path]:
    """The folder of each list that there is, in the order of `SPLITS`."""
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where a path is too long)
        raise DataError(f"{folder} is not a folder; it must be the one that holds those of the lists.")
    if named:
        found = {split: folder / named[split] for split in SPLITS if split in named}
        for split, place in found.items():
            if not os.path.isdir(place):  # noqa: PTH112 (as above)
                raise DataError(
                    f"{FLAGS[split]} is {one_line(str(named[split]))}, but there is no folder {one_line(str(place))};"
                    f" it must be a folder in {folder}, or an absolute path."
                )
    else:
        found = {split: folder / split for split in SPLITS if os.path.isdir(folder / split)}  # noqa: PTH112 (as above)
    if "noisy_train" not in found:
        inner = [shown(name) for name in _names(folder) if os.path.isdir(folder / name)]  # noqa: PTH112 (as above)
        there = ", ".join(inner[:5]) or "no folders"
        flags = "--noisy-train" if named else "--noisy-train, --clean-train, --val and --test"
        raise DataError(f"{folder} has no folder noisy_train; it holds {there}, which {flags} can name.")
    places = {split: place.resolve() for split, place in found.items()}
    for one, place in places.items():
        for other, above in places.items():
            if one != other and place.is_relative_to(above):
                raise DataError(f"{found[one]} of {one} is in {found[other]} of {other}; no image may be in two lists.")
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}; it must be a readable folder.") from None


def _origins(photos: Photos, folder: Path) -> list[str]:
    """Paths in `folder`, absolute ones for images elsewhere; class by class."""
    paths = [path for files in photos.classes.values() for path in files]
    return [str(path.relative_to(folder) if path.is_relative_to(folder) else path.absolute()) for path in paths]


def _keys(folder: Path, origins: list[str]) -> list[str]:
    """Drawn by a generator that derives from names and sizes, so that other people's photos have other keys."""
    seen = hashlib.sha256()
    for origin in origins:
        with contextlib.suppress(OSError):  # whoever reads it will say so
            seen.update(f"{origin}\0{(folder / origin).stat().st_size}\0".encode("utf-8", "surrogateescape"))
    return draw_keys(len(origins), np.random.default_rng([PURPOSE, int.from_bytes(seen.digest()[:8])]))
