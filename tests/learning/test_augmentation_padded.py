"""CIFAR's augmentation, a crop out of a black border, against torchvision; and the views that go with it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import functional

from learning import augmentation as module
from learning.augmentation import AUGMENTATIONS, augment, beside, gathered_windows, stored_size, strong
from methods.fedlsr import FedLSR
from task import derived_generator

PADDED = [name for name in AUGMENTATIONS if name.startswith("pad-")]


def _pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Nowhere black, so that a border is seen."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


@given(st.integers(0, 99), st.sampled_from([(16, 2), (32, 4), (33, 4), (40, 5)]))
def test_it_is_torchvisions_pad_crop_and_flip_for_the_same_corners(seed: int, sizes: tuple[int, int]) -> None:
    side, border = sizes
    images = _pictures(7, side, seed)
    found = augment(images, "pad-crop-flip", side, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    tops, lefts = torch.randint(2 * border + 1, (2, 7, 1), generator=generator).flatten(1).tolist()
    mirrored = (torch.rand(7, generator=generator) < 0.5).tolist()
    for row, image in enumerate(images.permute(0, 3, 1, 2)):
        padded = functional.pad(image, [border] * 4)  # zeros
        cut = functional.crop(padded, tops[row], lefts[row], side, side)
        expected = functional.hflip(cut) if mirrored[row] else cut
        assert torch.equal(found[row], expected.permute(1, 2, 0))


def test_every_corner_is_drawn_equally_often_and_each_side_is_drawn_by_itself() -> None:
    images = torch.zeros(4000, 16, 16, 3, dtype=torch.uint8)
    images[:, 8, 8] = 255  # one pixel: where it comes to lie tells the corner
    found = augment(images, "pad-crop-flip", 16, derived_generator(1, "x"))[..., 0]
    rows = found.amax(2).argmax(1)
    columns = found.amax(1).argmax(1)
    assert rows.unique().tolist() == [6, 7, 8, 9, 10]
    assert torch.bincount(rows, minlength=11)[6:].float().div(4000).tolist() == pytest.approx([0.2] * 5, abs=0.03)
    # Mirrored, column c is 15 - c: from 5 to 10, of which 6 to 9 come about in both ways.
    expected = [0.1, 0.2, 0.2, 0.2, 0.2, 0.1]
    assert torch.bincount(columns, minlength=11)[5:].float().div(4000).tolist() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("spare", [0, 3])
def test_the_way_of_a_gpu_gives_the_same_bits(name: str, spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _pictures(9, 32 + spare)
    before = images.clone()
    one_by_one = augment(images, name, 32, derived_generator(4, "x"))
    monkeypatch.setattr(module, "windows", gathered_windows)
    assert torch.equal(augment(images, name, 32, derived_generator(4, "x")), one_by_one)
    assert one_by_one.shape == (9, 32, 32, 3)
    assert torch.equal(images, before)


def test_images_are_stored_at_the_side_of_the_input() -> None:
    assert [stored_size(name, 32) for name in PADDED] == [32, 32, 32]


def test_a_larger_image_gives_its_centre_first() -> None:
    images = _pictures(3, 38)
    centre = images[:, 3:35, 3:35]
    found = augment(images, "pad-crop-flip", 32, derived_generator(1, "x"))
    assert torch.equal(found, augment(centre, "pad-crop-flip", 32, derived_generator(1, "x")))


@pytest.mark.parametrize(
    ("runs", "strongs", "jitters"),
    [
        ("none", "flip-randaugment", "flip-jitter"),
        ("flip-jitter", "flip-randaugment", "flip-jitter"),
        ("crop-flip", "crop-flip-randaugment", "crop-flip-jitter"),
        ("pad-crop-flip", "pad-crop-flip-randaugment", "pad-crop-flip-jitter"),
        ("pad-crop-flip-randaugment", "pad-crop-flip-randaugment", "pad-crop-flip-jitter"),
    ],
)
def test_other_views_crop_as_the_run_does(runs: str, strongs: str, jitters: str) -> None:
    assert strong(runs) == beside(runs, "randaugment") == strongs
    assert beside(runs, "jitter") == jitters
    assert FedLSR(colours="images").views(runs) == [runs, jitters]


def test_colours_follow_the_crop() -> None:
    """The same crop and flip, which are drawn first."""
    images = _pictures(64, 32)
    plain = augment(images, "pad-crop-flip", 32, derived_generator(1, "x"))
    coloured = augment(images, "pad-crop-flip-jitter", 32, derived_generator(1, "x"))
    untouched = (plain == coloured).flatten(1).all(1)
    assert 0 < untouched.sum() < 40  # a fifth keeps its colours, four fifths of them
