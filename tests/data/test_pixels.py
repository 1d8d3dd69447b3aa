from pathlib import Path

import numpy as np
import pytest

from data.images.pixels import Pixels, StoredPixels

IMAGES = np.random.default_rng(1).integers(0, 256, (10, 4, 4, 3), np.uint8)
ROWS = np.array([7, 2, 9, 2, 0])


def read_only(path: Path) -> np.ndarray:
    IMAGES.tofile(path)
    return np.memmap(path, np.uint8, "r", shape=IMAGES.shape)


@pytest.fixture(params=["array", "mapping", "rows"])
def pixels(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Pixels, np.ndarray]:
    """Some images, and what they must be."""
    if request.param == "array":
        return StoredPixels(IMAGES.copy()), IMAGES
    mapped = read_only(tmp_path / "images")
    return (StoredPixels(mapped), IMAGES) if request.param == "mapping" else (StoredPixels(mapped, ROWS), IMAGES[ROWS])


def test_images_are_those_of_an_array(pixels: tuple[Pixels, np.ndarray]) -> None:
    stored, expected = pixels
    assert (len(stored), stored.shape) == (len(expected), expected.shape)
    rows = np.array([3, 0, 3, 4])
    assert np.array_equal(stored.take(rows), expected[rows])
    assert np.array_equal(stored.part(1, 4), expected[1:4])
    assert np.array_equal(stored.part(3, 99), expected[3:])
    assert np.array_equal(stored.whole(), expected)
    assert stored.take(rows[:0]).shape == (0, 4, 4, 3)


def test_a_buffer_is_filled_in_place(pixels: tuple[Pixels, np.ndarray]) -> None:
    stored, expected = pixels
    buffer = np.zeros((3, 4, 4, 3), np.uint8)
    assert stored.take(np.array([4, 1]), out=buffer[:2]).base is buffer
    assert np.array_equal(buffer[:2], expected[[4, 1]])
    assert not buffer[2].any()


def test_what_is_handed_out_may_be_written_to(pixels: tuple[Pixels, np.ndarray], tmp_path: Path) -> None:
    stored, _ = pixels
    for images in (stored.whole(), stored.part(0, 2), stored.take(np.array([0]))):
        images[:] = 0
    if (tmp_path / "images").exists():
        assert (tmp_path / "images").read_bytes() == IMAGES.tobytes()


@pytest.mark.parametrize("row", [-1, 99])
def test_rows_that_do_not_exist_are_refused(pixels: tuple[Pixels, np.ndarray], row: int) -> None:
    with pytest.raises(IndexError, match=f"{row}"):
        pixels[0].take(np.array([0, row]))


def test_an_array_is_not_copied() -> None:
    images = IMAGES.copy()
    stored = StoredPixels(images)
    assert stored.whole().base is images
    assert stored.part(2, 5).base is images
