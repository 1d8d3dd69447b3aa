"""A folder of photos per class, opened as it is, by all that opens a release."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.images.loading import load_images
from data.release import open_release

LIES = 6  # orientation: to be turned by 270 degrees


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of three photos, in names that keys cannot have as they are, and a class without photos."""
    root = tmp_path / "our photos"
    names = (
        "T Shirt/IMG 1.jpg",
        "T Shirt/100%.png",
        "T Shirt/2024/über.jpg",
        "Coat/a.jpg",
        "Coat/b%20.webp",
        "Coat/c.JPG",
    )
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (40 * number, 100, 0)).save(path)
    (root / "Scarf").mkdir()
    (root / "Coat" / ".DS_Store").write_bytes(b"macOS")
    (root / "notes.txt").write_text("ours")
    return root


def test_labels_are_folders_and_keys_are_paths(photos: Path) -> None:
    release = open_release(photos)
    assert release.class_names == ("Coat", "Scarf", "T Shirt")
    split = release.split("noisy_train")
    assert [key.decode() for key in split.keys] == [
        "images/Coat/a.jpg", "images/Coat/b%2520.webp", "images/Coat/c.JPG", "images/T%20Shirt/100%25.png",
        "images/T%20Shirt/2024/über.jpg", "images/T%20Shirt/IMG%201.jpg",
    ]  # fmt: skip
    assert split.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert split.true.tolist() == [-1] * 6
    reds = load_images(release, split.keys, 16)[:, 8, 8, 0].astype(int)
    assert np.abs(reds - np.array([120, 160, 200, 40, 80, 0])).max() < 8
    assert [release.has(name) for name in ("noisy_train", "clean_train", "clean_val", "clean_test")] == [True] + [
        False
    ] * 3
    assert len(release.double_labelled()[0]) == 0
    with pytest.raises(DataError, match=r"our photos has no clean_test_key_list\.txt; without it 'test-split' must be"):
        release.split("clean_test")
