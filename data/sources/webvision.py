"""WebVision 1.0 (Li et al., "WebVision Database: Visual Learning and Understanding from Web Data", arXiv 1708.02862).

Images that Google and Flickr found for the names of ImageNet's 1,000 classes; their label is the query that found them.
Mini WebVision (Jiang et al., "MentorNet", ICML 2018) is the part from Google of the first 50 classes: 65,944 training
images and 2,500 of the validation set, which people have labelled.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.key_files import problem_of_names
from data.sources.lists import find_base, is_plain_path, read_lines, refuse_line
from data.sources.source import Listed, Source, files_below, numbered_keys

KIND = "WebVision 1.0"
SYNSETS, VALIDATION = "synsets.txt", "val_filelist.txt"
TRAINING = {"google": "train_filelist_google.txt", "flickr": "train_filelist_flickr.txt"}
VALIDATION_IMAGES = "val_images_256"
MINI, MINI_IMAGES = 50, {"noisy_train": 65_944, "clean_test": 2_500}
_SYNSET = re.compile(r"(n[0-9]{8})\s+(\S.*)")
_LABEL = re.compile(r"[0-9]{1,9}")


def read_webvision(folder: Path, classes: int | None = None, flickr: bool = False) -> Source:
    """Noisy train of Google's list, and Flickr's if asked for; clean test of the validation list.

    Args:
        folder: Holds ``info``, ``google`` and ``val_images_256``, or is one or two levels above, or is ``info``.
        classes: How many of the classes, the first ones; None: all.
        flickr: Whether images from Flickr join noisy train.

    Raises:
        DataError: A list is missing or malformed, a label is out of range, or no image is left.
    """
    base = find_base(folder, ("info",), KIND)
    names = _class_names(base / "info" / SYNSETS)
    if classes is not None and not 2 <= classes <= len(names):
        raise DataError(f"--classes is {classes}; it must be from 2 to {len(names):,}, as {SYNSETS} has so many.")
    kept = classes or len(names)
    test, labels = _listed(base / "info" / VALIDATION, len(names), kept)
    tests = [f"{VALIDATION_IMAGES}/{name}" for name in test]
    clean_test = Listed(tests, numbered_keys(KIND, tests), labels, np.full_like(labels, -1))
    origins: list[str] = []
    noisy = []
    for part in ("google", "flickr") if flickr else ("google",):
        paths, labels = _listed(base / "info" / TRAINING[part], len(names), kept)
        origins += paths
        noisy.append(labels)
    if len(set(origins)) != len(origins):
        raise DataError(f"{base / 'info' / TRAINING['flickr']} has images that {TRAINING['google']} has, too.")
    given = np.concatenate(noisy)
    # Validation has the first numbers: with and without Flickr, its keys are the same.
    keys = numbered_keys(KIND, origins, len(tests))
    splits = {"noisy_train": Listed(origins, keys, np.full_like(given, -1), given), "clean_test": clean_test}
    return Source(base, names[:kept], splits, files_below(base))


def _class_names(path: Path) -> tuple[str, ...]:
    """Names of all classes, without the numbers of their synsets, but for names that several have, such as crane."""
    lines = read_lines(path)
    if blank := next((place for place, (number, _) in enumerate(lines, 1) if number != place), 0):
        raise DataError(f"{path}, line {blank} is blank; it must be a class, as labels are the lines' numbers.")
    texts = [line.strip() for _, line in lines]
    found = [match.groups() if (match := _SYNSET.fullmatch(text)) else ("", text) for text in texts]
    often = Counter(name for _, name in found)
    names = tuple(f"{name} ({number})" if number and often[name] > 1 else name for number, name in found)
    if len(names) < 2:
        raise DataError(f"{path} has one class; it must have at least 2.")
    if problem := problem_of_names(names):
        raise DataError(f"{path}, line {problem}")
    return names


def _listed(path: Path, classes: int, kept: int) -> tuple[list[str], np.ndarray]:
    """Paths, and (n,) int64 labels below `kept`, of a list of lines such as ``google/q0001/x.jpg 0``."""
    seen: dict[str, int] = {}
    names, labels = [], []
    for number, line in read_lines(path):
        name, _, label = line.strip().rpartition(" ")
        name = name.rstrip()
        if not is_plain_path(name) or not _LABEL.fullmatch(label) or int(label) >= classes:
            refuse_line(path, number, line, f"a path without '..', a space and a label from 0 to {classes - 1}")
        if name in seen:
            raise DataError(f"{path}, line {number}: {name} is in line {seen[name]} already; it must be there once.")
        seen[name] = number
        if int(label) < kept:
            names.append(name)
            labels.append(int(label))
    if not labels:
        raise DataError(f"{path} has no image of the first {kept} classes; it must have at least one.")
    return names, np.array(labels, dtype=np.int64)
