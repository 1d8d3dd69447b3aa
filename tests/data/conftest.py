"""A tiny release, written by hand: nothing here uses the code under test."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

# Invented keys in the released form. Noisy train and clean train, val and test are disjoint; 8 and 9 carry both labels.
KEYS = [
    "images/0/19/1000000019,2236067019.jpg",
    "images/0/50/1020304050,3162277050.jpg",
    "images/1/41/7,577215141.jpg",
    "images/3/32/1618033988,141421332.jpg",
    "images/7/88/314159265,2718281788.jpg",
    "images/9/07/4242424242,907.jpg",
    "images/2/22/11,1222.jpg",
    "images/2/22/12,2222.jpg",
    "images/5/55/13,1555.jpg",
    "images/6/66/14,1666.jpg",
]
CLASSES = ["Kilt", "Anorak", "Poncho"]
NOISY_ROWS = [(KEYS[i], label) for i, label in ((4, 2), (0, 1), (9, 0), (2, 0), (8, 2), (1, 1), (5, 0), (3, 2))]
CLEAN_ROWS = [(KEYS[i], label) for i, label in ((9, 0), (6, 1), (8, 1), (7, 2))]
LISTS = {
    "noisy_train": [KEYS[i] for i in (0, 1, 2, 3, 4, 5)],
    "clean_train": [KEYS[6], KEYS[8]],
    "clean_val": [KEYS[7]],
    "clean_test": [KEYS[9]],
}


def texts() -> dict[str, str]:
    """The text files by name, in the released byte form: label files end with a newline, the others do not."""
    return {
        "category_names_eng.txt": "\n".join(CLASSES),
        "noisy_label_kv.txt": "".join(f"{key} {label}\n" for key, label in NOISY_ROWS),
        "clean_label_kv.txt": "".join(f"{key} {label}\n" for key, label in CLEAN_ROWS),
        **{f"{split}_key_list.txt": "\n".join(keys) for split, keys in LISTS.items()},
    }


def write_texts(folder: Path, **changes: str | bytes | None) -> None:
    """Write the text files; `changes` replaces contents by stem, None leaves a file out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        content = changes.get(name.removesuffix(".txt"), text)
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_images(folder: Path, keys: Sequence[str] = tuple(KEYS)) -> None:
    """Write one small picture per key below `folder`, which stands for images/."""
    for key in keys:
        path = folder / key.removeprefix("images/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 30, 90)).save(path)


@pytest.fixture
def write_release(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny release in the official layout; keywords change text files, see `write_texts`."""

    def write(**changes: str | bytes | None) -> Path:
        root = tmp_path / "clothing1m"
        write_texts(root, **changes)
        write_images(root / "images")
        return root

    return write


@pytest.fixture
def texts_into() -> Callable[..., None]:
    return write_texts


@pytest.fixture
def images_into() -> Callable[..., None]:
    return write_images


@pytest.fixture
def lists() -> Mapping[str, list[str]]:
    return LISTS


@pytest.fixture
def labels() -> Mapping[str, Mapping[str, int]]:
    return {"noisy": dict(NOISY_ROWS), "clean": dict(CLEAN_ROWS)}
