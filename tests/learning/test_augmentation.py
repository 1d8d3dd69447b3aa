"""Batched augmentation against torchvision, image by image."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import functional

from learning import colour
from learning.augmentation import augment, gathered_windows, stored_size, views, windows
from task import derived_generator

AMOUNT = st.floats(0, 2, width=32)


def pictures(count: int = 6, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, side, side, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def channels_first(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2)


@given(AMOUNT, AMOUNT, AMOUNT, st.floats(-0.5, 0.5, width=32), st.integers(0, 99))
def test_colours_are_torchvisions(brightness: float, contrast: float, saturation: float, hue: float, seed: int) -> None:
    images = pictures(2, seed=seed).float() / 255
    images[0, 0, 0] = 0.5  # a grey pixel has no hue
    amounts = [
        torch.tensor([value, 1.0 if index < 3 else 0.0])
        for index, value in enumerate((brightness, contrast, saturation, hue))
    ]
    adjusted = channels_first(colour.adjust(images, *amounts))
    expected = channels_first(images)[0]
    expected = functional.adjust_brightness(expected, brightness)
    expected = functional.adjust_contrast(expected, contrast)
    expected = functional.adjust_saturation(expected, saturation)
    expected = functional.adjust_hue(expected, hue)
    assert torch.allclose(adjusted[0], expected, atol=2e-4)
    assert torch.allclose(adjusted[1], channels_first(images)[1], atol=2e-6)  # one image's amounts are not another's


def test_hue_turns_red_to_green_to_blue() -> None:
    red = torch.tensor([1.0, 0.25, 0.25]).expand(3, 1, 1, 3)
    turned = colour.turn_hue(red, torch.tensor([0.0, 1 / 3, -1 / 3]))
    expected = torch.tensor([[1, 0.25, 0.25], [0.25, 1, 0.25], [0.25, 0.25, 1]])
    assert torch.allclose(turned[:, 0, 0], expected, atol=1e-6)


def test_distorted_inputs_are_torchvisions() -> None:
    """Of batches as they come, with values as they are after normalisation, in every order of the changes."""
    theirs = [
        functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue,
    ]  # fmt: skip
    kinds = set()
    for seed in range(150):
        inputs = 6 * torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) - 2.5
        inputs[0, :, 0, 0], inputs[1, :, 0, 0] = 2, -1  # grey pixels have no hue
        before = inputs.clone()
        found = colour.distort_inputs(inputs, torch.Generator().manual_seed(seed))
        drawn = torch.Generator().manual_seed(seed)
        mirrored, jittered, grey = torch.rand(3, generator=drawn).tolist()
        factors = (2 * torch.rand(4, generator=drawn) - 1).tolist()
        expected = functional.hflip(inputs) if mirrored < 0.5 else inputs
        for number in torch.randperm(4, generator=drawn).tolist() if jittered < 0.8 else ():
            factor = 1 + 0.8 * factors[number] if number < 3 else 0.2 * factors[3]
            expected = theirs[number](expected, factor)
        if grey < 0.2:
            expected = functional.rgb_to_grayscale(expected, 3)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
        assert torch.equal(inputs, before)
        kinds.add((mirrored < 0.5, jittered < 0.8, grey < 0.2))
    assert len(kinds) == 8


@pytest.mark.parametrize("seed", range(8))
def test_distorted_inputs_keep_their_layout(seed: int) -> None:
    inputs = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    found = colour.distort_inputs(inputs, torch.Generator().manual_seed(seed))
    assert found.shape == inputs.shape
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_jitter_leaves_a_fifth_alone_and_makes_a_fifth_grey() -> None:
    images = pictures(4000, side=2)
    out = colour.distort(images, derived_generator(1, "x"))
    assert out.dtype == torch.uint8
    assert out.shape == images.shape
    untouched = (out == images).flatten(1).all(1).float().mean()
    grey = (out == out[..., :1]).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(0.2 * 0.8, abs=0.03)
    assert grey == pytest.approx(0.2, abs=0.03)


def test_the_same_generator_gives_the_same_views_and_each_view_is_its_own() -> None:
    images = pictures(8, side=10)
    first = views(images, ["crop-flip-jitter", "crop-flip-jitter", "none"], 7, derived_generator(1, "x"))
    again = views(images, ["crop-flip-jitter", "crop-flip-jitter", "none"], 7, derived_generator(1, "x"))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[2], images[:, 1:8, 1:8])
    assert all(view.shape == (8, 7, 7, 3) for view in first)


@pytest.mark.parametrize(
    ("augmentation", "size"),
    [("none", 224), ("flip", 224), ("flip-jitter", 224), ("crop-flip", 256), ("crop-flip-jitter", 256)],
)
def test_images_are_stored_larger_for_crops(augmentation: str, size: int) -> None:
    assert stored_size(augmentation, 224) == size
    images = pictures(3, side=stored_size(augmentation, 21))
    assert augment(images, augmentation, 21, derived_generator(1, "x")).shape == (3, 21, 21, 3)


@given(st.integers(0, 99))
def test_windows_are_the_same_one_by_one_and_gathered(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = pictures(5, side=9, seed=seed)
    before = images.clone()
    corners, mirrored = torch.randint(4, (2, 5), generator=generator), torch.rand(5, generator=generator) < 0.5
    found = windows(images, 6, corners, mirrored)
    assert torch.equal(found, gathered_windows(images, 6, corners, mirrored))
    for row, (top, left, turned) in enumerate(zip(*corners, mirrored, strict=True)):
        window = images[row, top : top + 6, left : left + 6]
        assert torch.equal(found[row], window.flip(1) if turned else window)
    assert torch.equal(images, before)


class Crossings(TorchDispatchMode):
    """Records each copy from one kind of device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [value for value in args if isinstance(value, torch.Tensor)]
        if isinstance(result, torch.Tensor) and any(value.device != result.device for value in inputs):
            self.waiting.append(not (kwargs or {}).get("non_blocking", False))
        return result


@pytest.mark.parametrize(
    ("augmentation", "copies"),
    [("none", 0), ("flip", 1), ("crop-flip", 1), ("pad-crop-flip", 1), ("flip-jitter", 3)],
)
def test_a_device_gets_the_draws_in_few_copies_that_nobody_waits_for(augmentation: str, copies: int) -> None:
    """Tensors without values stand in for a GPU, on which a plain copy would wait until the last step is done."""
    images = torch.empty(4, 10, 10, 3, dtype=torch.uint8, device="meta")
    generator = derived_generator(1, "x")
    augment(images, augmentation, 8, generator)  # constants move once
    with Crossings() as crossings:
        assert augment(images, augmentation, 8, generator).shape == (4, 8, 8, 3)
    assert crossings.waiting == [False] * copies


@pytest.mark.parametrize("seed", range(8))
def test_a_device_distorts_inputs_without_waiting(seed: int) -> None:
    inputs = torch.empty(4, 3, 8, 8, device="meta")
    colour.distort_inputs(inputs, derived_generator(seed, "x"))  # constants move once
    with Crossings() as crossings:
        assert colour.distort_inputs(inputs, derived_generator(seed, "x")).shape == inputs.shape
    assert crossings.waiting == []
