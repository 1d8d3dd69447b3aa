"""Random colours of a whole batch at once: SimCLR's colour distortion, drawn for each image independently.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, appendix A, at strength
1, which FedLSR uses as well (Jiang et al., CIKM 2022): brightness, contrast and saturation within 0.8 of 1 and hue
within 0.2 of a turn, with probability 0.8; grey with probability 0.2. The four changes come in this order, where
torchvision shuffles them. FedLSR's code draws once per batch, after normalisation, where torchvision then clips
half of all values to zero; here colours change before normalisation.
"""

from functools import lru_cache

import torch
from torch import Tensor

from learning.batches import sent

STRENGTH = (0.8, 0.8, 0.8, 0.2)  # brightness, contrast, saturation, hue
JITTER, GREY = 0.8, 0.2  # probabilities
LUMA = (0.2989, 0.587, 0.114)  # of ITU-R BT.601, as torchvision rounds them
OFFSETS = (5.0, 3.0, 1.0)  # of red, green and blue, in sixths of a turn


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Distort the colours of each image independently.

    Args:
        images: (n, height, width, 3) uint8, on any device.
        generator: On the CPU; the draws do not depend on the device.

    Returns:
        (n, height, width, 3) uint8.
    """
    count = len(images)
    factors = 2 * torch.rand(4, count, generator=generator) - 1
    chosen = torch.stack([torch.rand(count, generator=generator) < p for p in (JITTER, GREY)])
    amounts = torch.stack(
        [*(1 + s * row for s, row in zip(STRENGTH[:3], factors[:3], strict=True)), STRENGTH[3] * factors[3]]
    )
    scaled = images.float().div_(255)
    changed = adjust(scaled, *sent(amounts, images.device))
    jittered, grey = sent(chosen, images.device)[:, :, None, None, None]
    changed = torch.where(jittered, changed, scaled)
    changed = torch.where(grey, luma(changed), changed)
    return changed.mul_(255).round_().to(torch.uint8)


def adjust(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Change colours by given amounts, image by image, as torchvision's ``adjust_*`` functions do.

    Args:
        images: (n, height, width, 3) float32 from 0 to 1.
        brightness: (n,) factors, 1 for no change.
        contrast: (n,) factors, about the mean grey of the image.
        saturation: (n,) factors, about the grey of the pixel.
        hue: (n,) turns, -0.5 to 0.5.

    Returns:
        (n, height, width, 3) float32 from 0 to 1.
    """
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in (brightness, contrast, saturation))
    images = (images * brightness).clamp_(0, 1)
    images = torch.lerp(luma(images).mean((1, 2), keepdim=True), images, contrast).clamp_(0, 1)
    images = torch.lerp(luma(images), images, saturation).clamp_(0, 1)
    return turn_hue(images, hue)


def luma(images: Tensor) -> Tensor:
    """(n, height, width, 3) to (n, height, width, 1)."""
    return (images * _constant(LUMA, images.device)).sum(dim=3, keepdim=True)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of each pixel in the HSV cone, which keeps its largest and its smallest channel.

    With V the largest and C the difference of the two, channel k of hue H (in sixths of a turn) is
    ``V - C * clip(min(m, 4 - m), 0, 1)`` where ``m = (5, 3, 1)_k + H mod 6``.
    """
    red, green, blue = images.unbind(3)
    largest = images.amax(3)
    spread = largest - images.amin(3)
    safe = spread.clamp_min(1e-12)
    sixths = torch.where(
        largest == red,
        (green - blue) / safe,
        torch.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    moved = (_constant(OFFSETS, images.device) + (sixths + 6 * turns[:, None, None]).unsqueeze(3)) % 6
    return largest.unsqueeze(3) - spread.unsqueeze(3) * torch.minimum(moved, 4 - moved).clamp_(0, 1)


@lru_cache(maxsize=8)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Moved to a device once, since the host waits for that."""
    return torch.tensor(values, device=device)
