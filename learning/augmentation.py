"""Random crops, flips, colours and more of a whole batch at once, on uint8, from the visit's own generator."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from learning.batches import sent
from learning.colour import distort
from learning.rand_augment import rand_augment

# The steps of each, `config.choices` has the same names; ``crop`` and ``flip`` are the recipe of L_DMI, FedCorr and
# FedELC on Clothing1M.
AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "flip": ("flip",),
    "crop-flip": ("crop", "flip"),
    "flip-jitter": ("flip", "jitter"),
    "crop-flip-jitter": ("crop", "flip", "jitter"),
    "flip-randaugment": ("flip", "randaugment"),
    "crop-flip-randaugment": ("crop", "flip", "randaugment"),
    "pad-crop-flip": ("pad-crop", "flip"),
    "pad-crop-flip-jitter": ("pad-crop", "flip", "jitter"),
    "pad-crop-flip-randaugment": ("pad-crop", "flip", "randaugment"),
}
BORDER = 8  # a border's width is the image's side divided by this: 4 pixels of 32, as He et al. pad CIFAR


def strong(augmentation: str) -> str:
    """The strong view that goes with a run's augmentation: RandAugment on a crop where the run crops."""
    return beside(augmentation, "randaugment")


def beside(augmentation: str, last: str) -> str:
    """The augmentation that crops as a run's does, mirrors, and then takes one more step."""
    crops = [step for step in AUGMENTATIONS[augmentation] if step in ("crop", "pad-crop")]
    return "-".join([*crops, "flip", last])


def stored_size(augmentation: str, image_size: int) -> int:
    """Side in pixels at which images are kept: 8/7 of the input for random crops (256 for 224), else the input's."""
    return round(image_size * 8 / 7) if "crop" in AUGMENTATIONS[augmentation] else image_size


def augment(images: Tensor, augmentation: str, image_size: int, generator: torch.Generator) -> Tensor:
    """Augment a batch.

    Args:
        images: (n, s, s, 3) uint8, on any device, with s of at least `image_size`.
        augmentation: A key of `AUGMENTATIONS`. Its steps are ``crop`` (placed uniformly; without it the centre is
            taken), ``pad-crop`` (the centre gets a black border of `image_size` // `BORDER` pixels on each side first,
            as torchvision's ``RandomCrop(32, padding=4)`` does), ``flip`` (mirror each image with probability 1/2),
            ``jitter`` (see `learning.colour`), ``randaugment`` (see `learning.rand_augment`).
        image_size: Side of the result.
        generator: On the CPU.

    Returns:
        (n, image_size, image_size, 3) uint8.
    """
    steps = AUGMENTATIONS[augmentation]
    if "pad-crop" in steps:
        images = _bordered(_centre(images, image_size), image_size // BORDER)
    count, spare = len(images), images.shape[1] - image_size
    corners = torch.full((2, count), spare // 2)
    mirrored = torch.zeros(count, dtype=torch.bool)
    crops = "crop" in steps or "pad-crop" in steps
    if crops:
        corners = torch.randint(spare + 1, (2, count, 1), generator=generator).flatten(1)
    if "flip" in steps:
        mirrored = torch.rand(count, generator=generator) < 0.5
    if crops or "flip" in steps:
        cut = windows if images.device.type == "cpu" else gathered_windows
        images = cut(images, image_size, corners, mirrored)
    else:
        images = _centre(images, image_size)
    if "jitter" in steps:
        images = distort(images, generator)
    return rand_augment(images, generator) if "randaugment" in steps else images


def views(images: Tensor, augmentations: Sequence[str], image_size: int, generator: torch.Generator) -> list[Tensor]:
    """Several views of one batch, for methods that compare them: each drawn independently, see `augment`."""
    return [augment(images, augmentation, image_size, generator) for augmentation in augmentations]


def _centre(images: Tensor, size: int) -> Tensor:
    """The middle of each image, without a copy."""
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]


def _bordered(images: Tensor, width: int) -> Tensor:
    """Images of the same number type, larger by `width` black pixels on each side."""
    return functional.pad(images, (0, 0, width, width, width, width))


# A CPU copies slices of single images many times faster than it gathers them; a GPU wants one operation for all.


def windows(images: Tensor, size: int, corners: Tensor, mirrored: Tensor) -> Tensor:
    """A window of each image, some of them mirrored.

    Args:
        images: (n, s, s, 3) uint8.
        size: Side of the windows.
        corners: (2, n) int64 first rows and first columns, on the CPU.
        mirrored: (n,) bool, on the CPU.

    Returns:
        (n, size, size, 3) uint8.
    """
    found = images.new_empty(len(images), size, size, 3)
    for row, (top, left, turned) in enumerate(zip(*corners.tolist(), mirrored.tolist(), strict=True)):
        window = images[row, top : top + size, left : left + size]
        found[row] = window.flip(1) if turned else window
    return found


def gathered_windows(images: Tensor, size: int, corners: Tensor, mirrored: Tensor) -> Tensor:
    """Like `windows`, in one operation."""
    device = images.device
    top, left, turned = sent(torch.stack((*corners, mirrored.long())), device)[:, :, None]
    span = torch.arange(size, device=device)
    columns = left + torch.where(turned.bool(), size - 1 - span, span)
    return images[torch.arange(len(images), device=device)[:, None, None], (top + span)[:, :, None], columns[:, None]]
