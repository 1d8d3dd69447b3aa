"""A small drawing surface in unit coordinates: what the garments of `data.sample.garments` are drawn with."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Range = tuple[float, float]
ANY_COLOUR = 0.2  # share of garments of a colour that is not typical of their class
SUPERSAMPLING = 2  # draw at twice the size and average down: edges like a photo's, not like pixel art


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in colour)  # type: ignore[return-value]


def mix(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(int(a + (b - a) * share) for a, b in zip(one, other, strict=True))  # type: ignore[return-value]


class Canvas:
    """Draws in coordinates where a garment spans about 0 to 1, placed by one random affine map per image.

    The fill of a shape may be textured: stripes, checks, dots or flowers that stay inside it.
    """

    def __init__(self, size: tuple[int, int], background: np.ndarray, rng: np.random.Generator) -> None:
        """Start from `background`.

        Args:
            size: Width and height of the finished image in pixels.
            background: (h, w, 3) uint8 of any size; stretched.
            rng: Draws scale, position and rotation.
        """
        self.rng = rng
        self.size = size
        self._full = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
        self.image = Image.fromarray(background).resize(self._full, Image.Resampling.BILINEAR)
        self.draw = ImageDraw.Draw(self.image)
        scale = rng.uniform(0.82, 1.0) * min(self._full)
        angle = rng.normal(0, 0.05)
        stretch = rng.uniform(0.92, 1.08)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._matrix = scale * rotation @ np.diag([stretch, 1 / stretch])
        if rng.random() < 0.5:
            self._matrix[:, 0] *= -1
        margin = (np.array(self._full) - scale) / 2
        self._centre = np.array(self._full) / 2 + rng.uniform(-0.5, 0.5, 2) * np.maximum(margin, 0.04 * scale)
        self.unit = scale

    def at(self, points: Sequence[Point]) -> list[Point]:
        """Unit coordinates to pixels."""
        placed = (np.asarray(points) - 0.5) @ self._matrix.T + self._centre
        return [(float(x), float(y)) for x, y in placed]

    def polygon(self, points: Sequence[Point], colour: Colour, *, texture: "Texture | None" = None) -> None:
        """A filled shape with a darker outline."""
        pixels = self.at(points)
        if texture is None:
            self.draw.polygon(pixels, fill=colour)
        else:
            mask = Image.new("L", self._full)
            ImageDraw.Draw(mask).polygon(pixels, fill=255)
            texture.paint(self, mask, colour)
        self.draw.line([*pixels, pixels[0]], fill=shade(colour, 0.72), width=max(1, round(self.unit * 0.008)))

    def mirrored(self, points: Sequence[Point], colour: Colour, *, texture: "Texture | None" = None) -> None:
        """A shape and its mirror image at x = 0.5: sleeves, lapels, cups."""
        self.polygon(points, colour, texture=texture)
        self.polygon([(1 - x, y) for x, y in points], colour, texture=texture)

    def symmetric(self, half: Sequence[Point], colour: Colour, *, texture: "Texture | None" = None) -> None:
        """A shape given by its left half, from top to bottom."""
        self.polygon([*half, *[(1 - x, y) for x, y in reversed(half)]], colour, texture=texture)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 0.01) -> None:
        self.draw.line(self.at(points), fill=colour, width=max(1, round(self.unit * width)), joint="curve")

    def dot(self, point: Point, radius: float, colour: Colour) -> None:
        ((x, y),) = self.at([point])
        reach = radius * self.unit
        self.draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)

    def finish(self) -> Image.Image:
        return self.image.reduce(SUPERSAMPLING)


class Texture:
    """A pattern over a base colour."""

    def __init__(self, kind: str, colour: Colour, pitch: float, opacity: float = 1.0) -> None:
        """Describe a pattern.

        Args:
            kind: ``rows``, ``columns``, ``checks``, ``dots`` or ``plain``.
            colour: Of the pattern.
            pitch: Distance of its lines or dots, as a share of the garment.
            opacity: Of the whole shape; below 1 the background shows through, as with chiffon.
        """
        self.kind, self.colour, self.pitch, self.opacity = kind, colour, pitch, opacity

    def paint(self, canvas: Canvas, mask: Image.Image, base: Colour) -> None:
        box = mask.getbbox()
        if box is None:
            return
        fill = Image.new("RGB", (box[2] - box[0], box[3] - box[1]), base)
        self._pattern(ImageDraw.Draw(fill), fill.size, self.pitch * canvas.unit, canvas.rng)
        inside = mask.crop(box)
        if self.opacity < 1:
            inside = ImageChops.multiply(inside, Image.new("L", inside.size, round(255 * self.opacity)))
        canvas.image.paste(fill, box[:2], inside)

    def _pattern(
        self, draw: ImageDraw.ImageDraw, size: tuple[int, int], pitch: float, rng: np.random.Generator
    ) -> None:
        step, width = max(3.0, pitch), max(1, round(pitch * 0.3))
        if self.kind in ("rows", "checks"):
            for y in np.arange(0, size[1], step):
                draw.line((0, y, size[0], y), fill=self.colour, width=width)
        if self.kind in ("columns", "checks"):
            for x in np.arange(0, size[0], step):
                draw.line((x, 0, x, size[1]), fill=self.colour, width=width)
        if self.kind == "dots":
            count = int(size[0] * size[1] / step**2)
            for x, y, reach in rng.random((min(count, 90), 3)) * (*size, 1):
                radius = step * (0.15 + 0.2 * reach)
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=self.colour)


def colour(
    canvas: Canvas, saturation: Range = (0.1, 0.9), value: Range = (0.3, 1.0), hue: Range = (0.0, 1.0)
) -> Colour:
    """A random colour with hue, saturation and brightness in the given ranges; hues wrap around at 1."""
    red, green, blue = colorsys.hsv_to_rgb(
        canvas.rng.uniform(*hue) % 1, canvas.rng.uniform(*saturation), canvas.rng.uniform(*value)
    )
    return int(255 * red), int(255 * green), int(255 * blue)


def typical(canvas: Canvas, saturation: Range, value: Range, hue: Range = (0.0, 1.0)) -> Colour:
    """A colour that the class usually has, or, one time in five, any."""
    if canvas.rng.random() < ANY_COLOUR:
        return colour(canvas)
    return colour(canvas, saturation, value, hue)
