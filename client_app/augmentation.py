"""Random flips and crops of a whole batch at once, on uint8, from the visit's own generator."""

import torch
from torch import Tensor


def stored_size(augmentation: str, image_size: int) -> int:
    """Side in pixels at which images are kept: 8/7 of the input for random crops (256 for 224), else the input's."""
    return round(image_size * 8 / 7) if augmentation == "crop-flip" else image_size


def augment(images: Tensor, augmentation: str, image_size: int, generator: torch.Generator) -> Tensor:
    """Augment a batch.

    Args:
        images: (n, s, s, 3) uint8 with ``s = stored_size(augmentation, image_size)``.
        augmentation: ``none``, ``flip`` (mirror each image with probability 1/2) or ``crop-flip`` (a uniformly placed
            crop first, the recipe of L_DMI, FedCorr and FedELC on Clothing1M).
        image_size: Side of the result.
        generator: On the CPU.

    Returns:
        (n, image_size, image_size, 3) uint8.
    """
    if augmentation == "none":
        return images
    if augmentation == "crop-flip":
        images = _random_crop(images, image_size, generator)
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(2), images)


def _random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    count, room = len(images), images.shape[1] - size + 1
    top, left = torch.randint(room, (2, count, 1), generator=generator).to(images.device)
    span = torch.arange(size, device=images.device)
    picked = torch.arange(count, device=images.device)[:, None, None]
    return images[picked, (top + span)[:, :, None], (left + span)[:, None, :]]
