"""ANIMAL-10N (Song et al., "SELFIE: Refurbishing Unclean Samples for Robust Deep Learning", ICML 2019).

50,000 training images of 64 x 64 whose labels people gave, about 8 % of them wrong, and 5,000 test images. All images
of a list are in one folder; the label is the first character of a file's name, ``3_12345.jpg``. No file says what the
ten classes are called.
"""

import os
import re
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.sources.lists import find_base
from data.sources.source import Listed, Source, files_below, numbered_keys

KIND = "ANIMAL-10N"
CLASSES = (
    "cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig",
)  # fmt: skip
FOLDERS = {"noisy_train": "training", "clean_test": "testing"}
ANIMALS = {"noisy_train": 50_000, "clean_test": 5_000}  # images, as published
_NAME = re.compile(r"[0-9]_[0-9]+\.(jpg|jpeg|png)", re.IGNORECASE)
LEFT_OUT = "not named as LABEL_NUMBER.jpg"


def read_animal10n(folder: Path) -> Source:
    """Noisy train of ``training/``, whose true labels nobody knows, and clean test of ``testing/``.

    Args:
        folder: Holds both, or is one or two levels above, or is one of them.

    Raises:
        DataError: It does not, or one of them has no image.
    """
    base = find_base(folder, tuple(FOLDERS.values()), KIND)
    left_out: list[tuple[Path, str]] = []
    splits = {}
    first = 0
    for split, name in FOLDERS.items():
        names = _images(base / name, left_out)
        origins = [f"{name}/{one}" for one in names]
        labels = np.array([int(one[0]) for one in names], dtype=np.int64)
        unknown = np.full_like(labels, -1)
        true, noisy = (unknown, labels) if split == "noisy_train" else (labels, unknown)
        splits[split] = Listed(origins, numbered_keys(KIND, origins, first), true, noisy)
        first = max(len(origins), ANIMALS["noisy_train"])  # keys of tests do not depend on what is left out before
    return Source(base, CLASSES, splits, files_below(base), left_out)


def _images(folder: Path, left_out: list[tuple[Path, str]]) -> list[str]:
    """Names of the images of a folder, sorted; everything else joins `left_out`."""
    names, folders = [], 0
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}; it must be a readable folder.") from None
    for entry in found:
        if entry.name.startswith("."):
            left_out.append((folder / entry.name, "hidden"))
        elif entry.is_dir():
            folders += 1
            left_out.append((folder / entry.name, "a folder"))
        elif not _NAME.fullmatch(entry.name):
            left_out.append((folder / entry.name, LEFT_OUT))
        else:
            names.append(entry.name)
    if not names:
        held = " only folders" if folders else " no such file"
        raise DataError(
            f"{folder} holds{held}; it must hold the images of {KIND} as released, named as LABEL_NUMBER.jpg, such as"
            " 3_12345.jpg."
        )
    return names
