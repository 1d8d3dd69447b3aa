"""Random crops, flips and colours of a whole batch at once, on uint8, from the visit's own generator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from learning.colour import distort

# The steps of each, `config.choices` has the same names; ``crop`` and ``flip`` are the recipe of L_DMI, FedCorr and
# FedELC on Clothing1M.
AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "flip": ("flip",),
    "crop-flip": ("crop", "flip"),
    "flip-jitter": ("flip", "jitter"),
    "crop-flip-jitter": ("crop", "flip", "jitter"),
}


def stored_size(augmentation: str, image_size: int) -> int:
    """Side in pixels at which images are kept: 8/7 of the input for random crops (256 for 224), else the input's."""
    return round(image_size * 8 / 7) if "crop" in AUGMENTATIONS[augmentation] else image_size


def augment(images: Tensor, augmentation: str, image_size: int, generator: torch.Generator) -> Tensor:
    """Augment a batch.

    Args:
        images: (n, s, s, 3) uint8, on any device, with s of at least `image_size`.
        augmentation: A key of `AUGMENTATIONS`. Its steps are ``crop`` (placed uniformly; without it the centre is
            taken), ``flip`` (mirror each image with probability 1/2), ``jitter`` (see `learning.colour`).
        image_size: Side of the result.
        generator: On the CPU.

    Returns:
        (n, image_size, image_size, 3) uint8.
    """
    steps = AUGMENTATIONS[augmentation]
    if "crop" in steps:
        places = images.shape[1] - image_size + 1
        top, left = torch.randint(places, (2, len(images), 1), generator=generator).flatten(1)
        images = crop(images, image_size, top, left)
    elif images.shape[1] > image_size:
        start = (images.shape[1] - image_size) // 2
        images = images[:, start : start + image_size, start : start + image_size]
    if "flip" in steps:
        images = mirror(images, torch.rand(len(images), generator=generator) < 0.5)
    return distort(images, generator) if "jitter" in steps else images


def views(images: Tensor, augmentations: Sequence[str], image_size: int, generator: torch.Generator) -> list[Tensor]:
    """Several views of one batch, for methods that compare them: each drawn independently, see `augment`."""
    return [augment(images, augmentation, image_size, generator) for augmentation in augmentations]


# A CPU copies slices of single images many times faster than it gathers them; a GPU wants one operation for all.


def crop(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    """A window of each image.

    Args:
        images: (n, s, s, 3) uint8.
        size: Side of the windows.
        top: (n,) int64 first rows, on the CPU.
        left: (n,) int64 first columns, on the CPU.

    Returns:
        (n, size, size, 3) uint8.
    """
    if images.device.type != "cpu":
        return gather_windows(images, size, top, left)
    windows = images.new_empty(len(images), size, size, 3)
    for row, (first, column) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        windows[row] = images[row, first : first + size, column : column + size]
    return windows


def gather_windows(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    """Like `crop`, in one operation."""
    device = images.device
    span = torch.arange(size, device=device)
    rows, columns = (first.to(device)[:, None] + span for first in (top, left))
    return images[torch.arange(len(images), device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images, (n, s, s, 3), that `mirrored` selects, (n,) bool on the CPU; the others stay."""
    if images.device.type != "cpu":
        return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(2), images)
    result = images.clone()
    for row in mirrored.nonzero().flatten().tolist():
        result[row] = images[row].flip(1)
    return result
