"""Random colours of a whole batch at once: SimCLR's colour distortion.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, appendix A, at strength
1, which FedLSR uses as well (Jiang et al., CIKM 2022): brightness, contrast and saturation within 0.8 of 1 and hue
within 0.2 of a turn, with probability 0.8; grey with probability 0.2. `distort` draws for each image and changes it
before it is normalised; the four changes come in this order, where torchvision shuffles them. `distort_inputs` is
FedLSR's own use of them: after normalisation, one draw for all images.
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


def distort_inputs(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror and distort all images of a batch alike, after normalisation, as the code of FedLSR's authors does.

    Each change but that of the hue cuts values off at 0 and 1, as torchvision's do, here at the mean of the data and a
    deviation above it: about half of all values become 0. One batch in five keeps its colours, and all of its values.
    The four changes come in random order.

    Args:
        inputs: (n, 3, height, width) float32, normalised, on any device.
        generator: On the CPU; the draws do not depend on the device.

    Returns:
        (n, 3, height, width) float32 in channels-last layout.
    """
    mirrored, jittered, grey = (torch.rand(3, generator=generator) < torch.tensor((0.5, JITTER, GREY))).tolist()
    factors = (2 * torch.rand(4, generator=generator) - 1) * torch.tensor(STRENGTH)
    order = torch.randperm(4, generator=generator).tolist()
    images = inputs.permute(0, 2, 3, 1)
    if mirrored:
        images = images.flip(2)
    if jittered:
        amounts = (factors + torch.tensor((1, 1, 1, 0))).tolist()
        for number in order:
            images = CHANGES[number](images, amounts[number])
    if grey:
        images = luma(images).expand_as(images).contiguous()
    return images.permute(0, 3, 1, 2)


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
    images = saturated(contrasted(brightened(images, brightness), contrast), saturation)
    return turn_hue(images, hue)


# Each takes (n, height, width, 3) float32 images and a number, or one for each image that broadcasts.


def brightened(images: Tensor, factor: Tensor | float) -> Tensor:
    return (images * factor).clamp_(0, 1)


def contrasted(images: Tensor, factor: Tensor | float) -> Tensor:
    return torch.lerp(luma(images).mean((1, 2), keepdim=True), images, factor).clamp_(0, 1)


def saturated(images: Tensor, factor: Tensor | float) -> Tensor:
    return torch.lerp(luma(images), images, factor).clamp_(0, 1)


def luma(images: Tensor) -> Tensor:
    """(n, height, width, 3) to (n, height, width, 1)."""
    return (images * _constant(LUMA, images.device)).sum(dim=3, keepdim=True)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of each pixel by (n,) `turns` in the HSV cone, which keeps its largest and its smallest channel."""
    largest, spread, share = _hue(images, turns[:, None, None])
    return largest - spread * share


def turn_any_hue(images: Tensor, turns: float) -> Tensor:
    """The same for values outside 0 to 1, of which torchvision cuts off all but a pixel's largest."""
    largest, spread, share = _hue(images, turns)
    return torch.where(share == 0, largest, (largest - spread * share).clamp_(0, 1))


def _hue(images: Tensor, turns: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """V, C and a share of C for each channel: turned, it is V minus that.

    With V the largest and C the difference of the largest and the smallest, channel k of hue H (in sixths of a turn) is
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
    moved = (_constant(OFFSETS, images.device) + (sixths + 6 * turns).unsqueeze(3)) % 6
    return largest.unsqueeze(3), spread.unsqueeze(3), torch.minimum(moved, 4 - moved).clamp_(0, 1)


CHANGES = (brightened, contrasted, saturated, turn_any_hue)  # in the order of `STRENGTH`


@lru_cache(maxsize=8)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Moved to a device once, since the host waits for that."""
    return torch.tensor(values, device=device)
