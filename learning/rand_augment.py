"""RandAugment of a whole batch at once: each image gets operations of its own.

Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", NeurIPS 2020
(arXiv 1909.13719): N operations, drawn uniformly from 14 for each image, one after the other, all at magnitude M of 30.

Here N = 2 and M = 10. Ranges and rounding are those of torchvision's ``RandAugment(2, 10)`` on tensors, with its 31
magnitudes, its nearest pixel and its fill of 0; other codes have other ranges, and FixMatch's draws the magnitudes.
With m = M / 30, the side s in pixels, and a sign that is drawn for each image:

- identity; autocontrast, which stretches each channel to 0...255; equalize, Pillow's
- posterize to ``8 - round(4 m)`` bits; solarize: values of at least ``255 (1 - m)`` are inverted
- brightness, contrast, colour (saturation) and sharpness: ``f x + (1 - f) y`` with ``f = 1 +- 0.9 m``, where y is
  black, the image's mean grey, the pixel's grey, or the image blurred
- rotate by ``+-30 m`` degrees; shear-x and shear-y by ``+-0.3 m``; translate-x and translate-y by ``+-(150 / 331) m s``
  pixels, rounded towards 0

Operations and signs are drawn on the CPU, so that it knows which images share an operation and never asks the device.
They compute with whole numbers, floats included, and so give the same pixels on every device. Blends differ from
torchvision's by one level of 255 at most; rotated and sheared images where a pixel's source is as near to two pixels.
"""

from collections.abc import Callable
from functools import lru_cache
from math import cos, radians, sin

import torch
from torch import Tensor
from torch.nn.functional import pad

from learning.batches import sent

NUMBER, MAGNITUDE, LARGEST = 2, 10, 30
RED, GREEN, BLUE = 19595 / 2**16, 38470 / 2**16, 7471 / 2**16  # in grey: Pillow's, whose sum is 1

# From (k, s, s, 3) uint8 images, (k, 1, 1, 1) float32 factors f in percent, and M, to (k, s, s, 3) uint8.
Change = Callable[[Tensor, Tensor, int], Tensor]
CHANGES: dict[str, Change] = {
    "identity": lambda images, factors, magnitude: images,
    "autocontrast": lambda images, factors, magnitude: autocontrast(images),
    "equalize": lambda images, factors, magnitude: equalize(images),
    "posterize": lambda images, factors, magnitude: images & (256 - (1 << round(4 * magnitude / LARGEST))),
    "solarize": lambda images, factors, magnitude: solarize(images, 255 - 255 * magnitude // LARGEST),
    "brightness": lambda images, factors, magnitude: blended(images, images.new_zeros(()), factors),
    "contrast": lambda images, factors, magnitude: blended(images, mean_grey(images), factors),
    "colour": lambda images, factors, magnitude: blended(images, grey(images), factors),
    "sharpness": lambda images, factors, magnitude: sharpness(images, factors),
}
MOVES = ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
OPERATIONS = (*CHANGES, *MOVES)


def rand_augment(
    images: Tensor, generator: torch.Generator, number: int = NUMBER, magnitude: int = MAGNITUDE
) -> Tensor:
    """Change each image by `number` operations of its own.

    Args:
        images: (n, s, s, 3) uint8, on any device; they stay as they are.
        generator: On the CPU; the draws do not depend on the device.
        number: N, at least 0; the same operation may come twice.
        magnitude: M, 0 to 30.

    Returns:
        (n, s, s, 3) uint8.
    """
    shape = (number, len(images))
    chosen = torch.randint(len(OPERATIONS), shape, generator=generator)
    return changed(images, chosen, 2 * torch.randint(2, shape, generator=generator) - 1, magnitude)


def changed(images: Tensor, chosen: Tensor, signs: Tensor, magnitude: int) -> Tensor:
    """Change images by given operations.

    Args:
        images: (n, s, s, 3) uint8, on any device.
        chosen: (N, n) int64 on the CPU: positions in `OPERATIONS`, the first row first.
        signs: (N, n) int64 on the CPU: -1 or 1; some operations have none.
        magnitude: M, 0 to 30.

    Returns:
        (n, s, s, 3) uint8.
    """
    images = images.clone()
    maps = _maps(images.shape[1], magnitude)[chosen, (signs + 1) // 2]
    kinds = chosen.clamp_max(len(CHANGES))  # all moves are one kind
    order = kinds.argsort(dim=1, stable=True)
    drawn = torch.cat((torch.stack((order, signs.gather(1, order)), 2), maps.take_along_dim(order[:, :, None], 1)), 2)
    for one, numbers in zip(kinds, sent(drawn, images.device), strict=True):
        shared = numbers.split(torch.bincount(one, minlength=len(CHANGES) + 1).tolist())
        for change, told in zip((*CHANGES.values(), None), shared, strict=True):
            if not len(told) or change is CHANGES["identity"]:
                continue
            rows = told[:, 0]
            some = images.index_select(0, rows)
            factors = (100 + 90 * magnitude // LARGEST * told[:, 1])[:, None, None, None].float()
            images.index_copy_(0, rows, change(some, factors, magnitude) if change else moved(some, told[:, 2:]))
    return images


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of each image to 0...255; one of a single value stays."""
    least, most = (getattr(getattr(images, way)(1, True), way)(2, True) for way in ("amin", "amax"))
    varied = most > least
    return cut_off((images - least.where(varied, 0)) / ((most - least) * (1 / 255)).where(varied, 1))


def equalize(images: Tensor) -> Tensor:
    """Give each channel of each image a flat histogram, as Pillow does.

    With ``step = b // 255``, where b pixels are below the channel's largest value, a value with c pixels below it
    becomes ``(c + step // 2) // step``, at most 255; a channel whose step is 0 stays.
    """
    count, side = images.shape[:2]
    values = images.reshape(count, side * side, 3).long()
    histogram = values.new_zeros(count, 256, 3).scatter_add_(1, values, values.new_ones(1, 1, 1).expand_as(values))
    through = histogram.cumsum(1)
    step = through.where(through < side * side, 0).amax(1, keepdim=True) // 255
    table = ((through - histogram + step // 2) // step.clamp_min(1)).clamp_max(255)
    table = table.where(step > 0, torch.arange(256, device=images.device)[:, None])
    return table.to(torch.uint8).gather(1, values).view_as(images)


def solarize(images: Tensor, threshold: int) -> Tensor:
    """Invert all values from the threshold on, faster than ``torch.where`` does."""
    return (images >= threshold).view(torch.uint8).mul_(255).bitwise_xor_(images)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with a blur of 3 x 3 pixels, the middle one of weight 5; pixels at the edge stay."""
    values = images.float()
    inner = values[:, 1:-1, 1:-1]
    across = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    blurred = ((across[:, :-2] + across[:, 1:-1] + across[:, 2:] + 4 * inner) / 13).round_()
    found = images.clone()
    found[:, 1:-1, 1:-1] = blended(inner, blurred, factors)
    return found


def grey(images: Tensor) -> Tensor:
    """(k, s, s, 3) uint8 to (k, s, s, 1) float32, whole levels."""
    red, green, blue = images.float().unbind(3)
    return (red * RED + green * GREEN + blue * BLUE).floor_().unsqueeze(3)


def mean_grey(images: Tensor) -> Tensor:
    """(k, s, s, 3) uint8 to (k, 1, 1, 1) int64: the nearest whole level, as Pillow has it."""
    pixels = images.shape[1] * images.shape[2]
    return (2 * grey(images).long().sum((1, 2), keepdim=True) + pixels) // (2 * pixels)


def blended(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    """``f x + (1 - f) y`` of whole levels, rounded down; times 0.01 in float32, hundreds become whole numbers."""
    return cut_off((images * factors + others * (100 - factors)).mul_(0.01))


def cut_off(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def moved(images: Tensor, maps: Tensor) -> Tensor:
    """Take each pixel from the nearest one of where a map points, black from outside.

    In whole numbers, which leave no rounding to the device.

    Args:
        images: (k, s, s, 3) uint8.
        maps: (k, 6) int64: xx, xy, x0, yx, yy, y0 of `_maps`.

    Returns:
        (k, s, s, 3) uint8.
    """
    count, side = images.shape[:2]
    framed = pad(images, (0, 0, 1, 1, 1, 1))  # whatever is outside becomes the frame
    span = torch.arange(side, dtype=torch.int32, device=images.device)
    xx, xy, x0, yx, yy, y0 = maps.int().t()[:, :, None]
    columns, rows = (
        ((across * span + start)[:, None] + (down * span)[:, :, None])
        .bitwise_right_shift_(_bits(side))
        .clamp_(-1, side)
        .add_(1)
        for across, down, start in ((xx, xy, x0), (yx, yy, y0))
    )
    first = (side + 2) ** 2 * torch.arange(count, device=images.device)[:, None, None]
    pixels = rows.mul_(side + 2).add_(columns) + first
    return framed.view(-1, 3).index_select(0, pixels.view(-1)).view_as(images)


def _bits(side: int) -> int:
    """Binary places of a map's numbers: as many as an int32 has room for, since no move leads 2 sides away."""
    return 31 - (2 * side).bit_length()


@lru_cache(maxsize=8)
def _maps(side: int, magnitude: int) -> Tensor:
    """Where moves take pixels from.

    Column x and row y get what is in column ``(xx x + xy y + x0) >> bits`` and row ``(yx x + yy y + y0) >> bits``.

    Returns:
        (14, 2, 6) int64 on the CPU: xx, xy, x0, yx, yy, y0 of each of `OPERATIONS`, with sign -1 and 1.
    """
    share, half = magnitude / LARGEST, side / 2
    shift = 150 * side * magnitude // (331 * LARGEST)
    found = torch.zeros(len(OPERATIONS), 2, 6, dtype=torch.int64)
    for column, sign in enumerate((-1, 1)):
        turn, slope = radians(30 * share * sign), 0.3 * share * sign
        c, s = cos(turn), sin(turn)
        moves = [  # for the middle of a pixel, x + 1/2 and y + 1/2
            (c, -s, half * (1 - c + s), s, c, half * (1 - c - s)),
            (1, slope, 0, 0, 1, 0),
            (1, 0, 0, slope, 1, 0),
            (1, 0, -sign * shift, 0, 1, 0),
            (1, 0, 0, 0, 1, -sign * shift),
        ]
        for row, (xx, xy, x0, yx, yy, y0) in enumerate(moves, start=len(CHANGES)):
            numbers = (xx, xy, x0 + (xx + xy) / 2, yx, yy, y0 + (yx + yy) / 2)
            found[row, column] = torch.tensor([round(number * 2 ** _bits(side)) for number in numbers])
    return found
