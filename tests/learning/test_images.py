"""Images of a visit, in batches on the device that wants them."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.images.pixels import StoredPixels
from learning.batches import epoch_batches
from learning.images import Images, images_on
from task import derived_generator

CPU = torch.device("cpu")


def _array(count: int) -> np.ndarray:
    return (np.arange(count * 12) % 251).astype(np.uint8).reshape(count, 2, 2, 3)


class Counted(StoredPixels):
    """Counts how often each image is asked for."""

    def __init__(self, base: np.ndarray) -> None:
        super().__init__(base)
        self.asked = np.zeros(len(base), dtype=int)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        np.add.at(self.asked, rows, 1)
        return super().take(rows, out)


@given(st.integers(1, 20), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_each_batch_is_the_images_of_its_rows(count: int, size: int, drop_last: bool, seed: int) -> None:
    array = _array(count)
    rows = list(epoch_batches(count, size, drop_last, derived_generator(seed, "x")))
    stored = StoredPixels(array)
    for images in (Images(torch.from_numpy(array), CPU), Images(stored, CPU), Images(stored, CPU, stay=True)):
        for _ in range(2):
            fed = list(images.batches(rows))
            assert len(fed) == len(rows)
            for part, (batch, which) in zip(rows, fed, strict=True):
                assert np.array_equal(batch.numpy(), array[part.numpy()])
                assert torch.equal(which, part)
            assert np.array_equal(torch.cat(list(images.in_order(size))).numpy(), array)
        assert images.shape == array.shape
        assert len(images) == count


@given(st.integers(2, 20), st.integers(1, 6), st.booleans(), st.integers(0, 99), st.booleans())
def test_an_image_that_stays_is_copied_once(count: int, size: int, drop_last: bool, seed: int, asked_all: bool) -> None:
    """Whatever earlier epochs left out, and if the method asks for all before the first or not."""
    pixels = Counted(_array(count))
    images = Images(pixels, CPU, stay=True)
    if asked_all:
        list(images.in_order(3))
    for epoch in range(3):
        rows = list(epoch_batches(count, size, drop_last, derived_generator(seed, "x", epoch)))
        for part, (batch, _) in zip(rows, images.batches(rows), strict=True):
            assert np.array_equal(batch.numpy(), _array(count)[part.numpy()])
    if asked_all or not drop_last:
        assert pixels.asked.tolist() == [1] * count
    assert max(pixels.asked) <= 1


def test_an_epoch_that_was_broken_off_leaves_no_gap() -> None:
    pixels = Counted(_array(9))
    images = Images(pixels, CPU, stay=True)
    rows = list(torch.arange(9).split(2))
    begun: Any = images.batches(rows)
    next(begun)
    begun.close()
    assert np.array_equal(torch.cat([batch for batch, _ in images.batches(rows)]).numpy(), _array(9))


def test_images_are_wrapped_once() -> None:
    images = Images(torch.from_numpy(_array(2)), CPU)
    assert images_on(images, CPU) is images
    assert len(images_on(torch.from_numpy(_array(2)), CPU)) == 2
    assert list(images_on(torch.from_numpy(_array(2)), CPU).batches([])) == []
