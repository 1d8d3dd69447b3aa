"""RandAugment of a batch against torchvision's, image by image."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from learning.augmentation import AUGMENTATIONS, augment, stored_size, strong
from learning.rand_augment import LARGEST, MOVES, OPERATIONS, blended, changed, grey, mean_grey, rand_augment
from task import derived_generator
from tests.learning.test_augmentation import Crossings

TORCHVISIONS = dict(
    zip(
        OPERATIONS,
        ("Identity", "AutoContrast", "Equalize", "Posterize", "Solarize", "Brightness", "Contrast", "Color",
         "Sharpness", "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"),
        strict=True,
    )
)  # fmt: skip
THEIRS = v2.RandAugment(2, 10)
BLENDS = {"brightness", "contrast", "colour", "sharpness"}  # theirs are rounded down after errors of float32
TIED = {"rotate", "shear-x", "shear-y"}  # where a pixel's source is as near to two pixels, theirs goes by rounding


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    """Noise, a smooth picture of few values, and one of a single colour, in turn."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    slope = torch.linspace(40, 170, side)
    smooth = torch.stack((slope[:, None].expand(side, side), slope.expand(side, side), (slope[:, None] + slope) / 2), 2)
    images[1::3] = smooth.round().to(torch.uint8)
    images[2::3] = torch.tensor([7, 90, 200], dtype=torch.uint8)
    return images


def theirs(images: Tensor, name: str, sign: int, magnitude: int) -> Tensor:
    side = images.shape[1]
    space, signed = THEIRS._AUGMENTATION_SPACE[TORCHVISIONS[name]]
    values = space(LARGEST + 1, side, side)
    value = 0.0 if values is None else float(values[magnitude])
    value *= sign if signed else 1
    first = images.permute(0, 3, 1, 2)
    found = THEIRS._apply_image_or_video_transform(first, TORCHVISIONS[name], value, THEIRS.interpolation, THEIRS._fill)
    return found.permute(0, 2, 3, 1)


def ours(images: Tensor, name: str, sign: int, magnitude: int) -> Tensor:
    chosen = torch.full((1, len(images)), OPERATIONS.index(name))
    return changed(images, chosen, torch.full_like(chosen, sign), magnitude)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("side", "magnitudes"), [(8, (0, 4, 9, 10, 17, 30)), (21, (1, 10, 29)), (224, (10,))])
def test_each_operation_is_torchvisions(name: str, sign: int, side: int, magnitudes: tuple[int, ...]) -> None:
    images = pictures(6, side)
    before = images.clone()
    for magnitude in magnitudes:
        found, expected = ours(images, name, sign, magnitude), theirs(images, name, sign, magnitude)
        assert found.dtype == torch.uint8
        apart = (found.int() - expected.int()).abs()
        if name in TIED:
            assert (apart > 0).float().mean() <= (1e-4 if magnitude == 10 else 0.02)
        else:
            assert apart.max() <= (name in BLENDS)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("posterize", {255: 254, 7: 6, 8: 8}),  # 7 bits
        ("solarize", {169: 169, 170: 85, 255: 0}),
        ("brightness", {0: 0, 101: 131, 200: 255}),
    ],
)
def test_levels_at_magnitude_10(name: str, changes: dict[int, int]) -> None:
    for before, after in changes.items():
        images = torch.full((1, 8, 8, 3), before, dtype=torch.uint8)
        assert ours(images, name, 1, 10).unique().tolist() == [after]


def test_blends_are_exact() -> None:
    """Of all levels, at all magnitudes, so that no device can round them otherwise."""
    one, other = torch.arange(256)[:, None], torch.arange(256)
    for percent in range(10, 191, 3):
        expected = ((percent * one + (100 - percent) * other) // 100).clamp(0, 255)
        assert torch.equal(blended(one.float(), other.float(), torch.tensor(float(percent))).long(), expected)


def test_greys_are_exact() -> None:
    colours = pictures(1, 200)
    weighted = colours.long() @ torch.tensor([19595, 38470, 7471])
    assert torch.equal(grey(colours)[..., 0].long(), weighted // 2**16)
    shades = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    assert torch.equal(grey(shades).to(torch.uint8), shades[..., :1])
    assert mean_grey(shades).item() == 128  # of 127.5
    assert mean_grey(shades[:, :, 1:]).item() == 128


def test_moves_at_magnitude_10() -> None:
    """A white pixel on black: 10 pixels along a row are 1 across it, and a translation is 0.151 of a side."""
    images = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    images[0, 19, 20] = 255
    for name, sign, place in (
        ("identity", 1, (19, 20)),
        ("translate-x", 1, (19, 26)),
        ("translate-y", -1, (13, 20)),
        ("shear-x", 1, (19, 18)),  # the middle of the pixel, 19.5, times 0.1
        ("shear-y", -1, (21, 20)),
    ):
        assert ours(images, name, sign, 10)[0, :, :, 0].nonzero().tolist() == [list(place)], name


def test_images_that_have_nothing_to_stretch_stay() -> None:
    single = torch.full((2, 8, 8, 3), 77, dtype=torch.uint8)
    for name in ("autocontrast", "equalize", "sharpness"):
        assert torch.equal(ours(single, name, 1, 10), single)
    for side in (1, 2):
        assert torch.equal(ours(single[:, :side, :side], "sharpness", 1, 10), single[:, :side, :side])


def test_whatever_comes_from_outside_is_black() -> None:
    white = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)
    for name in MOVES:
        for sign in (-1, 1):
            assert ours(white, name, sign, 10).unique().tolist() == [0, 255]


@pytest.mark.parametrize("side", [8, 224])
def test_each_image_gets_operations_of_its_own_one_after_the_other(side: int) -> None:
    """A batch is what its images are one by one."""
    count = 30
    images = pictures(count, side)
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randint(len(OPERATIONS), (2, count), generator=generator)
    signs = 2 * torch.randint(2, (2, count), generator=generator) - 1
    found = changed(images, chosen, signs, 10)
    for row in range(count):
        one = images[row : row + 1]
        for operation, sign in zip(chosen[:, row].tolist(), signs[:, row].tolist(), strict=True):
            one = ours(one, OPERATIONS[operation], sign, 10)
        assert torch.equal(found[row : row + 1], one)


def test_all_operations_and_both_signs_are_drawn_equally_often() -> None:
    """Seen in what becomes of one picture that each of them changes in its own way."""
    count, picture = 6000, pictures(1, 16)
    found = rand_augment(picture.expand(count, -1, -1, -1), derived_generator(1, "x"), number=1)
    signed = {*BLENDS, *MOVES}
    for name in OPERATIONS:
        for sign in (-1, 1) if name in signed else (1,):
            share = (found == ours(picture, name, sign, 10)).flatten(1).all(1).float().mean()
            assert share == pytest.approx(1 / 28 if name in signed else 1 / 14, abs=0.012), (name, sign)


def test_draws_depend_on_the_generator_alone() -> None:
    images = pictures(32, 8)
    first, again, other = (rand_augment(images, derived_generator(seed, "x")) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(rand_augment(images, derived_generator(1, "x"), number=0), images)
    assert rand_augment(images[:0], derived_generator(1, "x")).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(("augmentation", "side"), [("flip-randaugment", 21), ("crop-flip-randaugment", 24)])
def test_it_follows_crop_and_flip(augmentation: str, side: int) -> None:
    assert stored_size(augmentation, 21) == side
    images = pictures(30, side)
    generator, again = derived_generator(1, "x"), derived_generator(1, "x")
    found = augment(images, augmentation, 21, generator)
    weak = augment(images, augmentation.removesuffix("-randaugment"), 21, again)
    assert torch.equal(found, rand_augment(weak, again))


def test_the_strong_view_crops_where_the_run_does() -> None:
    for augmentation in AUGMENTATIONS:
        assert stored_size(strong(augmentation), 224) == stored_size(augmentation, 224)
        assert "randaugment" in AUGMENTATIONS[strong(augmentation)]


@pytest.mark.parametrize(("augmentation", "copies"), [("flip-randaugment", 2), ("crop-flip-randaugment", 2)])
def test_a_device_gets_the_draws_in_one_more_copy_that_nobody_waits_for(augmentation: str, copies: int) -> None:
    """Tensors without values stand in for a GPU: they refuse whatever needs to know a value."""
    images = torch.empty(200, 10, 10, 3, dtype=torch.uint8, device="meta")  # enough for each operation
    augment(images, augmentation, 8, derived_generator(1, "x"))  # constants move once
    with Crossings() as crossings:
        assert augment(images, augmentation, 8, derived_generator(1, "x")).shape == (200, 8, 8, 3)
    assert crossings.waiting == [False] * copies
