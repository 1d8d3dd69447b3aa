"""Finds the images of each class in a folder of people's own photos, and names all that is left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import DataError
from data.images.formats import all_suffixes, needed_for
from data.layout.key_files import problem_of_names
from data.text import LONGEST, shown

# What a NAS, an archiver or an operating system puts beside people's files.
SYSTEM = {"@eadir", "@recycle", "#recycle", "#snapshot", "@tmp", "__macosx", "$recycle.bin", "lost+found",
          "system volume information", "thumbs.db", "desktop.ini", "ehthumbs.db"}  # fmt: skip
SPLITS = {"train", "training", "valid", "validation", "val", "dev", "test", "testing"}
LEAST = 4  # images of a class: one for each list
DEEP = 3  # levels of folders in which a photo is looked for before a folder is taken for one of photos
MOST_SEEN = 10_000  # names that are read in search of it
HIDDEN, MADE, LINK, OUTSIDE, BROKEN = (
    "hidden", "made by a machine, not by its user", "a link to a folder, which is not followed", "in no class folder",
    "a link that leads nowhere",
)  # fmt: skip


@dataclass
class Photos:
    """What a folder holds.

    Attributes:
        classes: Class names, in NFC and in their order, that of code points, to sorted image files.
        left_out: Every other file, or link that is not followed, and why it is left out.
    """

    classes: dict[str, list[Path]] = field(default_factory=dict)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def find_photos(folder: Path, suffixes: frozenset[str], least: int = LEAST) -> Photos:
    """Look through ``folder/<class>/``; images may lie in folders below it.

    Args:
        folder: Holds one folder per class. A class folder may be a link, and so may an image; other links to folders
            are not followed, as they may lead to images that are in another class as well.
        suffixes: Of files that are images, in lower case.
        least: Images that each class must have. With 0, an empty folder is a class of which somebody has no photos.

    Raises:
        DataError: `folder` is none, or a whole file system; its folders are splits of a dataset, there are fewer than
            two classes, or a class has too few images or no plain name; two names differ only in how Unicode spells
            them; or there is no image at all.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; it must hold one folder of images per class.")
    if folder.resolve() == Path(folder.resolve().anchor):  # looking through all of it would take minutes
        raise DataError(
            f"{folder} is a whole file system; it must be a folder that holds one folder of images per class."
        )
    photos = Photos()
    folders: dict[str, Path] = {}
    for path in _entries(folder):
        if why := _never_wanted(path):
            photos.left_out += _all_below(path, why)
        elif _is_folder(path):
            name = unicodedata.normalize("NFC", path.name)  # as macOS may not have written it
            if name in folders:
                raise DataError(
                    f"{folder} holds two folders named {shown(name)}, whose accents are written in two ways of Unicode;"
                    " move the photos of both into one."
                )
            folders[name] = path
            photos.classes[name] = images_below(path, suffixes, photos.left_out)
        else:
            photos.left_out.append((path, OUTSIDE))
    photos.classes = dict(sorted(photos.classes.items()))
    _check(folder, photos, folders, suffixes, least)
    return photos


def holds_photos(folder: Path) -> bool:
    """Whether a photo lies in a folder or not far below it, in any format, also one that this Python cannot read.

    Looks at names alone, and at no more than `MOST_SEEN` of them.
    """
    if _never_wanted(folder):
        return False
    suffixes, left, level = all_suffixes(), MOST_SEEN, [str(folder)]
    for _ in range(DEEP):
        below = []
        for one in level:
            for entry in _scanned(one):
                left -= 1
                if left < 0:
                    return False
                if _never_wanted(Path(entry.name)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif Path(entry.name).suffix.lower() in suffixes:
                    return True
        level = sorted(below)
    return False


def _scanned(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing if that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def in_words(left_out: list[tuple[Path, str]], most: int = 4) -> str:
    """How many were left out, by reason, the most frequent first."""
    reasons = Counter(why for _, why in left_out).most_common()
    named = [f"{count:,} {why}" for why, count in reasons[:most]]
    if rest := sum(count for _, count in reasons[most:]):
        named.append(f"{rest:,} for other reasons")
    return ", ".join(named)


def _never_wanted(path: Path) -> str:
    if path.name.lower() in SYSTEM:
        return MADE
    return HIDDEN if path.name.startswith(".") else ""


def images_below(folder: Path, suffixes: frozenset[str], left_out: list[tuple[Path, str]]) -> list[Path]:
    """The images in a folder and in those below it, sorted; every other file, with the reason, joins `left_out`."""

    def why_not(path: Path) -> str:
        if why := _never_wanted(path):
            return why
        if path.is_symlink() and not _seen(Path.exists, path):
            return BROKEN
        if not _seen(Path.is_file, path):
            return LINK if _is_folder(path) else "no file"
        suffix = path.suffix.lower()
        if suffix in suffixes:
            return ""
        needed = needed_for(suffix)
        return f"{suffix}, which needs {needed}" if needed else suffix or "without a suffix"

    images = []
    for path in _entries(folder):
        if _is_folder(path) and not path.is_symlink() and not _never_wanted(path):
            images += images_below(path, suffixes, left_out)
        elif why := why_not(path):
            left_out += _all_below(path, why)
        else:
            images.append(path)
    return sorted(images)


def _all_below(path: Path, why: str) -> Iterator[tuple[Path, str]]:
    """A file, or all files of a folder."""
    if not _is_folder(path) or path.is_symlink():
        yield path, why
        return
    for inner in _entries(path):
        yield from _all_below(inner, why)


def _is_folder(path: Path) -> bool:
    return _seen(Path.is_dir, path)


def _seen(test: Callable[[Path], bool], path: Path) -> bool:
    """Whether a path passes a test; not if it may not even be looked at, as where a link leads into a closed folder."""
    try:
        return test(path)
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}; it must be a readable folder.") from None


def _check(folder: Path, photos: Photos, folders: dict[str, Path], suffixes: frozenset[str], least: int) -> None:
    names = list(photos.classes)
    splits = [name for name in names if name.lower() in SPLITS]
    if splits and (len(splits) > 1 or len(names) == 1):
        raise DataError(_about_splits(folder, splits))
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names)} folders; it must hold one folder of images per class, at least 2"
            f"{_one_level_down(folders)}."
        )
    for name, files in photos.classes.items():
        if name != name.strip() or problem_of_names([name]):
            raise DataError(
                f"class folder {shown(name)} must have a plain name of at most {LONGEST} characters without"
                " leading or trailing spaces."
            )
        others = [(path, why) for path, why in photos.left_out if path.is_relative_to(folders[name])]
        unexpected = not files and any(why not in (HIDDEN, MADE) for _, why in others)
        if len(files) < least or unexpected:
            held = f" (left out: {in_words(others)}; images end in {', '.join(sorted(suffixes))})" if others else ""
            wanted = f"have at least {least}, one for each list" if least else "have one, or be empty"
            raise DataError(f"class {shown(name)} has {len(files)} images{held}; it must {wanted}.")
    if not any(photos.classes.values()):
        raise DataError(f"{folder} has no image in any of its {len(names)} folders; it must have at least one.")


def _about_splits(folder: Path, splits: list[str]) -> str:
    """What to do with an export that somebody has split already."""
    largest = max(splits, key=lambda name: name.lower().startswith("train"))
    inside = [path.name for path in _entries(folder / largest) if _is_folder(path) and not _never_wanted(path)]
    advice = (
        f"import {folder / largest}, of which new splits are drawn, or keep these with `python -m data import splits`"
        if len(inside) > 1
        else "sort their images into one folder per class first"
    )
    return f"{folder} holds {', '.join(splits)}, which are splits of a dataset, not classes; {advice}."


def _one_level_down(folders: dict[str, Path]) -> str:
    """Advice for a folder that holds nothing but the right one, as archives unpack."""
    inner = next((one for one in folders.values() if sum(path.is_dir() for path in _entries(one)) > 1), None)
    return f", as {inner} does: import that" if inner else ""
