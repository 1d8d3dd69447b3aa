"""Random crops, flips and colours of a whole batch at once, on uint8, from the visit's own generator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from client_app.colour import distort


def stored_size(augmentation: str, image_size: int) -> int:
    """Side in pixels at which images are kept: 8/7 of the input for random crops (256 for 224), else the input's."""
    return round(image_size * 8 / 7) if "crop" in augmentation.split("-") else image_size


def augment(images: Tensor, augmentation: str, image_size: int, generator: torch.Generator) -> Tensor:
    """Augment a batch.

    Args:
        images: (n, s, s, 3) uint8, on any device, with s of at least `image_size`.
        augmentation: ``none``, or steps joined by hyphens: ``crop`` (placed uniformly; with ``flip`` the recipe of
            L_DMI, FedCorr and FedELC on Clothing1M; without it the centre is taken), ``flip`` (mirror each image with
            probability 1/2), ``jitter`` (see `client_app.colour`).
        image_size: Side of the result.
        generator: On the CPU.

    Returns:
        (n, image_size, image_size, 3) uint8.
    """
    steps = augmentation.split("-")
    if "crop" in steps:
        images = _random_crop(images, image_size, generator)
    elif images.shape[1] > image_size:
        start = (images.shape[1] - image_size) // 2
        images = images[:, start : start + image_size, start : start + image_size]
    if "flip" in steps:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(2), images)
    return distort(images, generator) if "jitter" in steps else images


def views(images: Tensor, augmentations: Sequence[str], image_size: int, generator: torch.Generator) -> list[Tensor]:
    """Several views of one batch, for methods that compare them: each drawn by itself, see `augment`."""
    return [augment(images, augmentation, image_size, generator) for augmentation in augmentations]


def _random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    count, room = len(images), images.shape[1] - size + 1
    top, left = torch.randint(room, (2, count, 1), generator=generator).to(images.device)
    span = torch.arange(size, device=images.device)
    picked = torch.arange(count, device=images.device)[:, None, None]
    return images[picked, (top + span)[:, :, None], (left + span)[:, None, :]]
