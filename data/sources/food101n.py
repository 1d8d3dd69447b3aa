"""Food-101N (Lee et al., "CleanNet: Transfer Learning for Scalable Image Classifier Training with Label Noise", CVPR
2018), with the test images of Food-101 (Bossard et al., ECCV 2014).

310,009 images that a search engine found for the 101 classes of Food-101, about 20 % of their labels wrong. People have
looked at some 58,000 of them and say whether the label is right, not what a wrongly labelled image shows instead.
"""

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.finding import WRONG
from data.layout.key_files import problem_of_names
from data.sources.lists import find_base, is_plain_path, read_lines, refuse_line, without_header
from data.sources.source import Listed, Source, numbered_keys, read_image
from data.text import shown

KIND, TESTS = "Food-101N", "Food-101"
FOOD_TESTS = {"clean_test": 25_250}  # images, as published
IMAGES, VERIFIED_TRAIN, VERIFIED_VAL = "imagelist.tsv", "verified_train.tsv", "verified_val.tsv"
HEADER = "class_name"  # what the first line of each of Food-101N's text files begins with
SUFFIXES = (".jpg", ".jpeg", ".png")
FEW, SHARE = 10, 0.01  # of images that lists disagree about; more than both are no accident
TEST_PARTS = ("images", "meta/test.txt")  # of Food-101
TEST_FOLDER = "food-101"  # what its images' origins begin with


@dataclass(frozen=True)
class FoodSource(Source):
    """Two datasets, of which the second one's images are called as if they were in a folder of the first.

    Attributes:
        tests: The folder of Food-101; None without it.
    """

    tests: Path | None = None

    def place(self, origin: str) -> Path:
        return _place(self.root, self.tests, origin)


def read_food101n(folder: Path, food101: Path | None = None, clean_train: bool = False) -> Source:
    """Noisy train of all images but those of clean val: verified ones of `VERIFIED_VAL` whose labels are right.

    What is known of noisy labels, people's verdicts, is kept as their true labels, for scoring only.

    Args:
        folder: Holds ``images`` and ``meta``, or is one or two levels above, or is one of them.
        food101: Likewise of Food-101, whose test images become clean test.
        clean_train: Whether verified images of `VERIFIED_TRAIN` whose labels are right become clean train.

    Raises:
        DataError: A list is missing or malformed, names an unknown class or a path outside; lists disagree about more
            than a few images; Food-101 has other classes.
    """
    base = find_base(folder, ("images", f"meta/{IMAGES}"), KIND)
    classes = _class_names(base / "meta" / "classes.txt", HEADER)
    label_of = {name: label for label, name in enumerate(classes)}
    paths = _paths(base / "meta" / IMAGES, label_of)
    train, val = (_verdicts(base / "meta" / name, label_of) for name in (VERIFIED_TRAIN, VERIFIED_VAL))
    odd = _odd(paths, train, val)
    if len(odd) > max(FEW, SHARE * len(train.keys() | val.keys())):
        path, why = next(iter(odd.items()))
        raise DataError(f"the lists in {base / 'meta'} disagree about {len(odd):,} images, the first {path}: {why}.")
    found: dict[str, list[int]] = {"noisy_train": [], "clean_train": [], "clean_val": []}
    for row, path in enumerate(paths):
        if path not in odd:
            is_clean_train = clean_train and train.get(path)
            found["clean_val" if val.get(path) else "clean_train" if is_clean_train else "noisy_train"].append(row)
    if not found["noisy_train"]:
        raise DataError(f"{base / 'meta' / IMAGES} leaves no image for noisy train; it must have some.")
    origins = [f"images/{path}" for path in paths]
    keys = numbered_keys(KIND, origins)  # an image's is the same whatever list it is in
    labels = np.array([label_of[_class(path)] for path in paths], dtype=np.int64)
    known = np.array([_known(val.get(path, train.get(path))) for path in paths])
    true = np.where(known > 0, labels, np.where(known < 0, WRONG, -1))
    splits = {
        name: Listed([origins[row] for row in rows], [keys[row] for row in rows], true[rows], labels[rows])
        for name, rows in found.items()
        if rows
    }
    food = find_base(food101, TEST_PARTS, TESTS) if food101 else None
    if food:
        splits["clean_test"] = _tests(food, classes, len(paths))
    left_out = [(base / "images" / path, why) for path, why in odd.items()]
    encoded = partial(_encoded, base, food)
    return FoodSource(base, classes, splits, encoded, left_out, tests=food)


def _encoded(root: Path, tests: Path | None, origin: str) -> bytes:
    return read_image(_place(root, tests, origin))


def _place(root: Path, tests: Path | None, origin: str) -> Path:
    folder, _, rest = origin.partition("/")
    return tests / rest if tests and folder == TEST_FOLDER else root / origin


def _known(verdict: bool | None) -> int:
    """1 for a right label, -1 for a wrong one, 0 if nobody looked."""
    return 0 if verdict is None else 1 if verdict else -1


def _class_names(path: Path, header: str = "") -> tuple[str, ...]:
    """In the order of their names: that of the lines is not the same in both datasets."""
    lines = read_lines(path)
    lines = without_header(path, lines, header) if header else lines
    names = sorted(line.strip() for _, line in lines)
    if problem := problem_of_names(names):
        raise DataError(f"{path} has a wrong class, by name number {problem}")
    if len(names) < 2:
        raise DataError(f"{path} has one class; it must have at least 2.")
    return tuple(names)


def _paths(path: Path, label_of: dict[str, int], header: str = HEADER) -> list[str]:
    """``class/image`` with its suffix, each once, in the order of the lines."""
    lines = read_lines(path)
    lines = without_header(path, lines, header) if header else lines
    return list(dict.fromkeys(_image(path, number, line, line, label_of) for number, line in lines))


def _verdicts(path: Path, label_of: dict[str, int]) -> dict[str, bool | None]:
    """By path, whether people found its label right; None where lines disagree."""
    found: dict[str, bool | None] = {}
    for number, line in without_header(path, read_lines(path), HEADER):
        name, tab, verdict = line.partition("\t")
        if not tab or verdict.strip(" ") not in ("0", "1"):
            refuse_line(path, number, line, "class/image, a tab, and 0 or 1")
        image = _image(path, number, line, name, label_of)
        right = verdict.strip(" ") == "1"
        found[image] = right if found.get(image, right) == right else None
    return found


def _image(path: Path, number: int, line: str, name: str, label_of: dict[str, int]) -> str:
    """The path of an image in ``images``, whether a list writes its suffix or not."""
    name = name.strip(" ")
    if name.count("/") != 1 or not is_plain_path(name):
        refuse_line(path, number, line, "class/image" if "\t" not in line else "class/image, a tab, and 0 or 1")
    if _class(name) not in label_of:
        raise DataError(f"{path}, line {number}: {shown(_class(name))} is no class of meta/classes.txt.")
    return name if name.lower().endswith(SUFFIXES) else f"{name}.jpg"


def _class(path: str) -> str:
    return path.partition("/")[0]


def _odd(paths: list[str], train: dict[str, bool | None], val: dict[str, bool | None]) -> dict[str, str]:
    """Images about which lists disagree, which are in none of the release's, and why."""
    classes_by_name: dict[str, dict[str, set[str]]] = {}
    for file, listed in ((IMAGES, paths), (VERIFIED_TRAIN, train), (VERIFIED_VAL, val)):
        for path in listed:
            name = path.partition("/")[2]
            classes_by_name.setdefault(name, {}).setdefault(file, set()).add(_class(path))
    odd = {}
    listed_paths = set(paths)
    for path in dict.fromkeys([*paths, *train, *val]):
        why = _dispute(classes_by_name[path.partition("/")[2]])
        if not why and path not in listed_paths:
            why = f"verified, but not in {IMAGES}"
        verdicts = {one[path] for one in (train, val) if path in one}
        if not why and (None in verdicts or len(verdicts) > 1):
            why = "verified as right and as wrong"
        if why:
            odd[path] = why
    return odd


def _dispute(classes: dict[str, set[str]]) -> str:
    """Which two lists have one image under different classes; empty if none do."""
    for one, other in combinations(classes, 2):
        if not classes[one] & classes[other]:
            here, there = (", ".join(sorted(classes[file])) for file in (one, other))
            return f"{here} in {one}, {there} in {other}"
    return ""


def _tests(base: Path, classes: tuple[str, ...], first: int) -> Listed:
    """Food-101's test images; `first` is the number of the first one's key."""
    others = _class_names(base / "meta" / "classes.txt")
    if others != classes:
        odd = min(set(others) ^ set(classes))
        whose, other = (TESTS, KIND) if odd in others else (KIND, TESTS)
        raise DataError(
            f"{base / 'meta' / 'classes.txt'} has {len(others)} classes and {KIND} has {len(classes)}: {shown(odd)} is"
            f" one of {whose}, not of {other}; they must be the same."
        )
    label_of = {name: label for label, name in enumerate(classes)}
    paths = _paths(base / "meta" / "test.txt", label_of, header="")
    labels = np.array([label_of[_class(path)] for path in paths], dtype=np.int64)
    origins = [f"{TEST_FOLDER}/images/{path}" for path in paths]
    return Listed(origins, numbered_keys(KIND, origins, first), labels, np.full_like(labels, -1))
