"""Finds a release on disk: which folder holds its text files, which its images, or why a folder is not a release."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.photo_folders import holds_photos

SPLITS = ("noisy_train", "clean_train", "clean_val", "clean_test")
LIST_FILES = {split: f"{split}_key_list.txt" for split in SPLITS}
NOISY_LABELS = "noisy_label_kv.txt"
CLEAN_LABELS = "clean_label_kv.txt"
CATEGORIES = "category_names_eng.txt"
# Not released, this app's own: what noisy training images really show, and of which ones no more is known than that
# their noisy labels are wrong.
TRUE_LABELS = "true_label_kv.txt"
WRONG_LABELS = "wrong_label_key_list.txt"
WRONG = -2  # stands for a true label of which nothing is known but that the noisy one is not it
LABEL_FILES = {split: NOISY_LABELS if split == "noisy_train" else CLEAN_LABELS for split in SPLITS}  # that lists need
TEXT_FILES = (CATEGORIES, NOISY_LABELS, CLEAN_LABELS, *LIST_FILES.values())  # category_names_chn.txt is not read

TEXT_FOLDERS = ("", "annotations", "label")  # as released; PLC, PES and L_DMI; DISC
IMAGE_FOLDERS = ("images", "")  # as released; DivideMix, MLNT, ELR, C2D and GenKL
LEAVES = frozenset("0123456789")  # the first folder level under images/, one tar each

_SCRIPT_SPLITS = frozenset({"noisy_train", "clean_train", "clean_val", "clean_test", "train", "val", "test"})
_BELOW_LEAF = re.compile("[0-9]{2}")  # the second folder level
_GET_TEXT = "put the seven text files of annotations.zip in it"
_IMPORT = "import it with `python -m data import folder {folder} --out DIR`"


@dataclass(frozen=True)
class Layout:
    """Where a release keeps its parts.

    Attributes:
        text: The folder of the text files: `CATEGORIES`, some of `LIST_FILES`, and the label files that these need.
        images: The folder of ``0`` to ``9``; the image of key ``images/7/88/a,b.jpg`` is ``7/88/a,b.jpg`` in it.
    """

    text: Path
    images: Path


def find_layout(root: Path) -> Layout:
    """Accept the released layout and its common variants, and refuse every other folder.

    Lists may be missing: sites have no clean ones, and a server need not have noisy train.

    Raises:
        DataError: `root` is not a release; the message names what was found there and what to do about it.
    """
    names = _names(root)
    if not names:
        raise DataError(f"{root} is empty; it must be a folder in Clothing1M's released layout (see data/README.md).")
    text = max((root / folder for folder in TEXT_FOLDERS), key=lambda folder: len(text_files(folder)))
    if not text_files(text):
        raise DataError(_why_no_text(root, names))
    _check_text_files(text, text_files(text))
    for folder in IMAGE_FOLDERS:
        if _leaves(root / folder):
            return Layout(text, root / folder)
    raise DataError(_why_no_images(root, names))


def text_files(text: Path) -> frozenset[str]:
    """Those of `TEXT_FILES` that a folder has; a link counts even if what it leads to is gone for now."""
    return frozenset(TEXT_FILES).intersection(_names_or_none(text))


def is_class_folder(root: Path) -> bool:
    """Whether a folder holds one folder of images per class, and is nothing that `find_layout` takes for a mistake."""
    names = _names_or_none(root)
    if not names or any(text_files(root / folder) for folder in TEXT_FOLDERS):
        return False
    return not _mistake(root, names) and bool(_class_folders(root, names))


def why_all_missing(root: Path, images: Path, key: str) -> str:
    """Guess which folder level is wrong when the image of `key` and of every other key is missing."""
    leaf, file = key.removeprefix("images/").split("/", 1)[0], key.removeprefix("images/")
    mistakes = {
        images / "images" / file: f"move what is in {images / 'images'} up into {images}",
        root / file: f"the tars were unpacked in {root}; move the folders 0 to 9 into {images}",
        images / leaf / file: f"each tar was unpacked in a folder of its own; move {images / leaf / leaf} up"
        f" into {images}, and the others likewise",
        images / file.removeprefix(f"{leaf}/"): f"a folder level was lost; unpack each tar as it is inside {images}",
        images / Path(file).name: f"the folders were lost; unpack each tar as it is inside {images}",
    }
    for path, advice in mistakes.items():
        if _exists(path):
            return advice
    return f"unpack each tar inside {images}, so that it holds 0/00 to 9/99"


def _check_text_files(text: Path, there: frozenset[str]) -> None:
    """Refuse text files that are no release even of one list."""
    if CATEGORIES not in there:
        raise DataError(f"{text / CATEGORIES} is missing; a release has the names of its classes.")
    if not there.intersection(LIST_FILES.values()):
        raise DataError(f"{text} has no list of images; it must have at least one of {', '.join(LIST_FILES.values())}.")
    for split, file in LIST_FILES.items():
        if file in there and LABEL_FILES[split] not in there:
            raise DataError(f"{text / LABEL_FILES[split]} is missing; the images of {file} need their labels.")


def _why_no_text(root: Path, names: list[str]) -> str:
    """What `root` is instead of a release."""
    if mistake := _mistake(root, names):
        return mistake
    if classes := _class_folders(root, names):
        return (
            f"{root} holds class folders ({', '.join(classes[:3])}{', ...' * (len(classes) > 3)}) and no text files;"
            f" {_IMPORT.format(folder=root)}."
        )
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    if all(_is_dir(root / name) for name in names):
        return (
            f"{root} holds only folders ({shown}), and no photo was found in any of them; it must hold one folder of"
            " photos per class, or be a release (see data/README.md)."
        )
    return f"{root} holds none of the release's text files, only {shown}; it must hold {', '.join(TEXT_FILES)}."


def _class_folders(root: Path, names: list[str]) -> list[str]:
    return [name for name in names if _is_dir(root / name) and holds_photos(root / name)]


def _mistake(root: Path, names: list[str]) -> str:
    """What a copy of the release without text files is, most telling sign first; empty if it is no such copy."""
    for parent in root.absolute().parents[:2]:
        if any(text_files(parent / folder) for folder in TEXT_FOLDERS):
            return f"{root} is a folder inside a release; give {parent}, which holds the release."
    folders = [name for name in names if (root / name).is_dir()]
    for name in folders:
        if any(text_files(root / name / inner) for inner in TEXT_FOLDERS):
            return f"{root} is one level too high; give {root / name}, which holds the release."
    for name in names:
        if advice := _archive_advice(root, name):
            return f"{root} holds {name}: {advice}."
    if joined := [name for name in names if name.endswith(".txt") and name[:-4] in _SCRIPT_SPLITS]:
        return (
            f"{root} holds {joined[0]}, lists joined with labels as L_DMI's script makes them, not the released"
            f" ones (in one copy a line lacks its label); {_GET_TEXT}."
        )
    if tar := _first_tar(root) or _first_tar(root / "images"):
        return f"{root} holds {tar} but no text files; {_GET_TEXT} and unpack each tar inside images/."
    if len(splits := sorted(_SCRIPT_SPLITS.intersection(folders))) > 1:
        largest = "noisy_train" if "noisy_train" in splits else splits[0]
        return (
            f"{root} holds {', '.join(splits)}, a copy that a script sorted into class folders, without keys"
            f" and labels; get the release, or {_IMPORT.format(folder=root / largest)}."
        )
    for images in (root / folder for folder in IMAGE_FOLDERS):
        if (leaves := _leaves(images)) and all(_is_released(images / leaf) for leaf in leaves):
            return f"{root} holds images but no text files; {_GET_TEXT}."
    return ""


def _why_no_images(root: Path, names: list[str]) -> str:
    """What went wrong with the images of a folder whose text files are in place."""
    if tar := _first_tar(root / "images") or _first_tar(root):
        return f"{root} holds {tar}, which is not unpacked; unpack each tar inside images/ (0.tar becomes images/0)."
    if _leaves(root / "images" / "images"):
        return f"{root}/images/images is one level too deep; move its folders 0 to 9 up into {root}/images."
    parent = root.absolute().parent
    if root.absolute().name in TEXT_FOLDERS and any(_leaves(parent / folder) for folder in IMAGE_FOLDERS):
        return f"{root} holds the text files of a release; give {parent}, which holds its images as well."
    found = "its folder images holds none of the folders 0 to 9" if "images" in names else "it has no folder images"
    return f"{root} has the text files of a release but no images: {found}; unpack each tar inside images/."


def _archive_advice(root: Path, name: str) -> str | None:
    """What to do about the download `name`, or None if it is not one."""
    if name.endswith(".npz"):
        return "a re-upload of 64-pixel images without keys, clean train and clean val, of no use here; get the release"
    if name.endswith((".tar.gz", ".tgz")):
        return "unpack it, then annotations.zip, then each tar inside images/"
    if name == "annotations.zip":
        tar = _first_tar(root / "images") or _first_tar(root)
        return f"unzip it in {root}" + (", and unpack each tar inside images/" if tar else "")
    return None


def _first_tar(folder: Path) -> str | None:
    """The first image tar of `folder`, as ``images/0.tar``; downloads rename it to ``0-004.tar``."""
    tars = sorted(name for name in _names_or_none(folder) if name.endswith(".tar") and name[0] in LEAVES)
    return f"{'images/' if folder.name == 'images' else ''}{tars[0]}" if tars else None


def _leaves(folder: Path) -> list[str]:
    return [name for name in _names_or_none(folder) if name in LEAVES and (folder / name).is_dir()]


def _is_released(leaf: Path) -> bool:
    """Whether one of the folders 0 to 9 holds nothing but folders of the released layout, and is no class."""
    return all(_BELOW_LEAF.fullmatch(name) for name in _names_or_none(leaf))


def _names(folder: Path) -> list[str]:
    """Sorted names in `folder`, without what macOS and archivers leave behind."""
    try:
        return sorted(_wanted(os.listdir(folder)))  # noqa: PTH208 (iterdir builds a Path for each name)
    except FileNotFoundError:
        raise DataError(f"{folder} does not exist; it must be a folder in Clothing1M's released layout.") from None
    except NotADirectoryError:
        advice = _archive_advice(folder.parent, folder.name) or "it must be a folder in Clothing1M's released layout"
        raise DataError(f"{folder} is a file: {advice}.") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}; it must be a readable folder.") from None


def _names_or_none(folder: Path) -> list[str]:
    """Like `_names`, but empty for what is not a folder."""
    return _names(folder) if _is_dir(folder) else []


def _wanted(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if not name.startswith("._") and name not in (".DS_Store", "__MACOSX"))


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
