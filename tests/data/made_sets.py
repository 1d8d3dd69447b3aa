"""Datasets in their published forms, made by hand: every image is one colour, which names its list and its number."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from data.errors import DataError


def write_image(path: Path, colour: tuple[int, int, int] = (200, 30, 90), side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path, "JPEG")


def write_animal10n(folder: Path, training: int = 20, testing: int = 10) -> Path:
    """So many images in each folder, of all ten classes in turn, numbered from 0 in each."""
    for part, (name, count) in enumerate({"training": training, "testing": testing}.items()):
        for number in range(count):
            write_image(folder / name / f"{number % 10}_{number}.jpg", (200 * part, 8 * number, 20 * (number % 10)))
    return folder


# By class: images with their verdicts. "t1" is right in verified_train.tsv, "v0" wrong in verified_val.tsv.
FOOD: Mapping[str, Mapping[str, str]] = {
    "waffles": {"a0": "", "a1": "", "a2": "t1", "a3": "t0", "a4": "v1", "a5": "v0"},
    "apple_pie": {"b0": "", "b1": "t1", "b2": "t1", "b3": "t0", "b4": "v1"},
    "ramen": {"c0": "", "c1": "", "c2": "v1", "c3": "v0", "c4": ""},
}


def write_food101n(folder: Path, food: Mapping[str, Mapping[str, str]] = FOOD) -> Path:
    """A release whose classes are not in the order of their names, with a header in each text file."""
    rows = [(f"{name}/{key}.jpg", verdict) for name, keys in food.items() for key, verdict in keys.items()]
    for number, (path, _) in enumerate(rows):
        write_image(folder / "images" / path, (10 * number, 0, 100))
    write_lines(folder / "meta" / "classes.txt", ["class_name", *food])
    write_lines(folder / "meta" / "imagelist.tsv", ["class_name/key", *(path for path, _ in rows)])
    for letter, file in (("t", "verified_train.tsv"), ("v", "verified_val.tsv")):
        lines = [f"{path}\t{verdict[1]}" for path, verdict in rows if verdict.startswith(letter)]
        write_lines(folder / "meta" / file, ["class_name/key\tverification_label", *lines])
    return folder


def write_food101(folder: Path, classes: Sequence[str] = tuple(sorted(FOOD)), each: int = 2) -> Path:
    """Food-101 with as many test images of each class, and one of training, which nobody should import."""
    write_lines(folder / "meta" / "classes.txt", classes)
    tests = [f"{name}/{1000 * place + number}" for place, name in enumerate(classes) for number in range(each)]
    write_lines(folder / "meta" / "test.txt", tests)
    write_lines(folder / "meta" / "train.txt", [f"{classes[0]}/7"])
    for number, path in enumerate([*tests, f"{classes[0]}/7"]):
        write_image(folder / "images" / f"{path}.jpg", (20 * number, 250, 0))
    return folder


SYNSETS = (
    "n01440764 tench, Tinca tinca",
    "n02012849 crane",
    "n01443537 goldfish, Carassius auratus",
    "n03126707 crane",
)


def write_webvision(folder: Path, google: int = 24, flickr: int = 8, val: int = 8) -> Path:
    """Four classes in turn; images of Google are of 16 pixels, of Flickr of 20, of validation of 24."""
    write_lines(folder / "info" / "synsets.txt", SYNSETS)
    for name, count, side in (("google", google, 16), ("flickr", flickr, 20)):
        lines = [f"{name}/q{number % 4 + 1:04}/image{number}.jpg" for number in range(count)]
        for path in lines:
            write_image(folder / path, side=side)
        labelled = [f"{path} {number % 4}" for number, path in enumerate(lines)]
        write_lines(folder / "info" / f"train_filelist_{name}.txt", labelled)
    names = [f"val{number + 1:06}.jpg" for number in range(val)]
    for name in names:
        write_image(folder / "val_images_256" / name, side=24)
    write_lines(folder / "info" / "val_filelist.txt", [f"{name} {number % 4}" for number, name in enumerate(names)])
    return folder


def write_splits(folder: Path, names: Mapping[str, int], classes: Sequence[str] = ("cats", "dogs")) -> Path:
    """By folder name, how many photos of each class it holds."""
    for part, (name, count) in enumerate(names.items()):
        for label, one in enumerate(classes):
            for number in range(count):
                write_image(folder / name / one / f"{number}.jpg", (60 * part, 100 * label, 10 * number))
    return folder


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def originals(out: Path) -> dict[str, str]:
    """Of an imported release: by where an image was in the dataset, its key."""
    lines = (out / "originals.tsv").read_text(encoding="utf-8").splitlines()
    return {origin: key for key, origin in (line.split("\t") for line in lines)}


def labels_of(out: Path, file: str) -> dict[str, int]:
    """A label file of an imported release."""
    lines = (out / file).read_text(encoding="utf-8").splitlines()
    return {key: int(label) for key, label in (line.split(" ") for line in lines)}


def keys_of(out: Path, file: str) -> list[str]:
    return (out / file).read_text(encoding="utf-8").splitlines()


def sentences_of_damage(path: Path, step: int, values: bytes, read: Callable[[], object]) -> set[str]:
    """What a reader says if every `step`-th byte of a file is another one; anything but `DataError` is its fault."""
    said, text = set(), path.read_bytes()
    for place in range(0, len(text), step):
        for value in values:
            path.write_bytes(text[:place] + bytes([value]) + text[place + 1 :])
            try:
                read()
            except DataError as error:
                said.add(str(error))
    path.write_bytes(text)
    return said
