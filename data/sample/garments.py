"""Fourteen drawn garments, one function each, told apart as people do: by silhouette and typical details.

Colour is only a hint: suits tend to be dark, underwear pale, chiffon light and flowery, but any garment can have most
colours. Knitwear and Sweater are close on purpose: in Clothing1M they are the pair that even web shops mix up.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from data.sample.canvas import ANY_COLOUR, Canvas, Colour, Point, Texture, colour, mix, shade, typical

WHITE: Colour = (250, 250, 248)
SKIN: tuple[Colour, ...] = ((236, 200, 176), (214, 168, 138), (160, 112, 84), (110, 76, 58))


def draw_garment(label: int, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draw one photo of a garment.

    Args:
        label: Class index in the released order, 0 to 13.
        size: Width and height in pixels.
        rng: Every choice comes from it.

    Returns:
        An RGB image.
    """
    canvas = Canvas(size, _background(rng), rng)
    if label not in (10, 13) and rng.random() < 0.35:
        _person(canvas)
    GARMENTS[label](canvas)
    return canvas.finish()


def _background(rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) uint8, small: mostly bright and warm like a shop's, sometimes coloured, shaded or with a floor."""
    base = np.array([228, 214, 208]) + rng.normal(0, 10)
    if rng.random() < 0.2:
        base = rng.uniform(120, 240, 3)
    rows = np.ones((16, 16, 3)) * base
    rows += np.linspace(-1, 1, 16)[:, None, None] * rng.normal(0, 10)
    rows += np.linspace(-1, 1, 16)[None, :, None] * rng.normal(0, 8)
    if rng.random() < 0.25:
        rows[int(rng.integers(11, 15)) :] *= rng.uniform(0.6, 0.9)
    rows += rng.normal(0, rng.uniform(0, 7), rows.shape)
    return rows.clip(0, 255).astype(np.uint8)


def _person(canvas: Canvas) -> None:
    """A faceless body behind the garment."""
    skin = SKIN[int(canvas.rng.integers(len(SKIN)))]
    canvas.polygon([(0.44, -0.1), (0.56, -0.1), (0.56, 0.2), (0.44, 0.2)], skin)
    canvas.dot((0.5, -0.1), 0.1, skin)
    canvas.mirrored([(0.2, 0.3), (0.28, 0.3), (0.2, 0.85), (0.13, 0.85)], skin)
    canvas.mirrored([(0.34, 0.7), (0.48, 0.7), (0.47, 1.2), (0.36, 1.2)], skin)


def _jitter(canvas: Canvas, amount: float = 0.02) -> float:
    return float(canvas.rng.normal(0, amount))


def _long_sleeves(canvas: Canvas, fill: Colour, width: float, texture: Texture | None = None) -> None:
    spread, end = 0.08 + _jitter(canvas), 0.82 + _jitter(canvas, 0.03)
    points = [(0.3, 0.14), (spread, end - 0.06), (spread + width, end), (0.36, 0.38)]
    canvas.mirrored(points, shade(fill, 0.95), texture=texture)


def _body(canvas: Canvas, fill: Colour, hem: float, flare: float = 0.0, texture: Texture | None = None) -> None:
    """Shoulders, chest, hem: the trunk that most tops share; `hem` is its y, `flare` widens it downwards."""
    waist = 0.29 + _jitter(canvas, 0.01)
    canvas.symmetric(
        [(0.43, 0.1), (0.28, 0.14), (waist, 0.4), (waist - flare, hem), (0.45, hem + 0.01)], fill, texture=texture
    )


def _neck(canvas: Canvas, depth: float, fill: Colour, rim: Colour) -> None:
    points: list[Point] = [(0.42, 0.1), (0.45, 0.1 + depth * 0.8), (0.5, 0.1 + depth)]
    canvas.symmetric(points, fill)
    canvas.line([*points, (0.55, 0.1 + depth * 0.8), (0.58, 0.1)], rim, 0.02)


def _stripes_or_none(canvas: Canvas, fill: Colour, kinds: list[str], chance: float) -> Texture | None:
    if canvas.rng.random() > chance:
        return None
    kind = kinds[int(canvas.rng.integers(len(kinds)))]
    return Texture(kind, mix(fill, colour(canvas, (0.2, 0.9), (0.2, 1.0)), 0.7), canvas.rng.uniform(0.05, 0.13))


def t_shirt(canvas: Canvas) -> None:
    fill = typical(canvas, (0.55, 1.0), (0.6, 1.0))
    texture = _stripes_or_none(canvas, fill, ["rows"], 0.3)
    reach = 0.12 + _jitter(canvas)
    canvas.mirrored([(0.3, 0.14), (reach, 0.3), (reach + 0.08, 0.42), (0.33, 0.34)], shade(fill, 0.95), texture=texture)
    _body(canvas, fill, 0.88 + _jitter(canvas), texture=texture)
    _neck(canvas, 0.07, shade(fill, 0.7), shade(fill, 0.8))
    if texture is None and canvas.rng.random() < 0.7:
        accent = colour(canvas, (0.5, 1.0), (0.4, 1.0))
        if canvas.rng.random() < 0.5:
            canvas.dot((0.5, 0.45), canvas.rng.uniform(0.07, 0.13), accent)
        else:
            canvas.polygon([(0.38, 0.36), (0.62, 0.36), (0.62, 0.54), (0.38, 0.54)], accent)


def shirt(canvas: Canvas) -> None:
    fill = typical(canvas, (0.02, 0.35), (0.85, 1.0), hue=(0.5, 0.68))
    texture = _stripes_or_none(canvas, fill, ["columns", "checks"], 0.5)
    _long_sleeves(canvas, fill, 0.11, texture)
    _body(canvas, fill, 0.86 + _jitter(canvas), texture=texture)
    dark = shade(fill, 0.55)
    canvas.line([(0.5, 0.16), (0.5, 0.86)], dark, 0.012)
    for y in np.linspace(0.24, 0.8, 6):
        canvas.dot((0.52, float(y)), 0.013, dark)
    canvas.mirrored([(0.42, 0.07), (0.5, 0.15), (0.42, 0.22), (0.38, 0.11)], shade(fill, 1.06))
    canvas.polygon([(0.58, 0.34), (0.67, 0.34), (0.67, 0.44), (0.58, 0.44)], shade(fill, 0.93))


def knitwear(canvas: Canvas) -> None:
    fill = typical(canvas, (0.35, 0.75), (0.45, 0.8), hue=(-0.08, 0.12))
    texture = Texture("rows", shade(fill, 0.8), 0.035)
    _long_sleeves(canvas, fill, 0.09, texture)
    _body(canvas, fill, 0.84 + _jitter(canvas), texture=texture)
    _neck(canvas, 0.16, shade(WHITE, 0.85), shade(fill, 0.65))
    canvas.line([(0.28, 0.82), (0.72, 0.82)], shade(fill, 0.6), 0.03)


def chiffon(canvas: Canvas) -> None:
    fill = mix(typical(canvas, (0.1, 0.4), (0.9, 1.0), hue=(-0.15, 0.15)), WHITE, 0.3)
    flowers = Texture("dots", colour(canvas, (0.4, 0.9), (0.5, 0.95)), canvas.rng.uniform(0.09, 0.15), opacity=0.8)
    canvas.mirrored([(0.3, 0.13), (0.06, 0.42), (0.2, 0.52), (0.36, 0.34)], fill, texture=flowers)
    half: list[Point] = [(0.4, 0.1), (0.28, 0.14), (0.31, 0.36), (0.2, 0.8)]
    wave = [(0.2 + 0.075 * i, 0.8 + (0.05 if i % 2 else 0.0)) for i in range(9)]
    canvas.polygon([*half, *wave, (0.69, 0.36), (0.72, 0.14), (0.6, 0.1)], fill, texture=flowers)
    for x in (0.34, 0.44, 0.56, 0.66):
        canvas.line([(0.5 + (x - 0.5) * 0.5, 0.4), (x, 0.78)], shade(fill, 0.86), 0.008)
    canvas.line([(0.45, 0.12), (0.47, 0.3), (0.5, 0.2), (0.53, 0.3), (0.55, 0.12)], shade(fill, 0.7), 0.014)


def sweater(canvas: Canvas) -> None:
    fill = typical(canvas, (0.1, 0.45), (0.5, 0.9), hue=(-0.02, 0.16))
    texture = Texture("columns", shade(fill, 0.85), 0.09)
    _long_sleeves(canvas, fill, 0.13, texture)
    _body(canvas, fill, 0.86 + _jitter(canvas), texture=texture)
    canvas.symmetric([(0.42, 0.0), (0.4, 0.12), (0.47, 0.15)], shade(fill, 0.85))
    canvas.line([(0.41, 0.06), (0.59, 0.06)], shade(fill, 0.65), 0.012)


def hoodie(canvas: Canvas) -> None:
    fill = typical(canvas, (0.1, 0.55), (0.3, 0.65), hue=(0.35, 0.7))
    canvas.symmetric([(0.5, -0.04), (0.36, 0.02), (0.31, 0.16), (0.4, 0.26)], shade(fill, 0.8))
    _long_sleeves(canvas, fill, 0.12)
    _body(canvas, fill, 0.86 + _jitter(canvas))
    canvas.symmetric([(0.5, 0.02), (0.41, 0.06), (0.4, 0.14), (0.5, 0.24)], shade(fill, 0.5))
    canvas.line([(0.5, 0.22), (0.5, 0.86)], shade(WHITE, 0.8), 0.018)
    canvas.mirrored([(0.34, 0.6), (0.46, 0.6), (0.46, 0.78), (0.31, 0.78)], shade(fill, 0.85))
    canvas.line([(0.46, 0.24), (0.45, 0.42)], WHITE, 0.014)
    canvas.line([(0.54, 0.24), (0.55, 0.42)], WHITE, 0.014)


def windbreaker(canvas: Canvas) -> None:
    khaki: Colour = (196, 166, 120)
    fill = mix(khaki, colour(canvas), float(canvas.rng.choice([0.15, 0.9], p=[1 - ANY_COLOUR, ANY_COLOUR])))
    canvas.mirrored([(0.3, 0.1), (0.12, 0.62), (0.22, 0.66), (0.36, 0.34)], shade(fill, 0.93))
    canvas.symmetric([(0.42, 0.05), (0.29, 0.1), (0.33, 0.45), (0.22, 1.02), (0.48, 1.02)], fill)
    dark = shade(fill, 0.55)
    canvas.mirrored([(0.45, 0.05), (0.36, 0.09), (0.36, 0.26), (0.5, 0.36)], shade(fill, 1.12))
    canvas.line([(0.31, 0.47), (0.69, 0.47)], dark, 0.04)
    canvas.dot((0.5, 0.47), 0.03, shade(fill, 1.3))
    for y in (0.34, 0.42, 0.56, 0.64):
        canvas.dot((0.44, y), 0.014, dark)
        canvas.dot((0.56, y), 0.014, dark)
    canvas.line([(0.5, 0.5), (0.52, 1.0)], dark, 0.01)


def jacket(canvas: Canvas) -> None:
    leather: Colour = (58, 46, 42)
    fill = mix(leather, colour(canvas), float(canvas.rng.choice([0.1, 0.9], p=[1 - ANY_COLOUR, ANY_COLOUR])))
    _long_sleeves(canvas, fill, 0.13)
    _body(canvas, fill, 0.68 + _jitter(canvas), flare=-0.01)
    canvas.polygon([(0.29, 0.64), (0.71, 0.64), (0.71, 0.7), (0.29, 0.7)], shade(fill, 0.6))
    canvas.line([(0.47, 0.18), (0.55, 0.66)], shade(WHITE, 0.85), 0.02)
    canvas.mirrored([(0.42, 0.06), (0.48, 0.18), (0.36, 0.26), (0.33, 0.12)], shade(fill, 1.35))
    canvas.line([(0.33, 0.5), (0.43, 0.54)], shade(WHITE, 0.75), 0.014)
    canvas.line([(0.67, 0.5), (0.57, 0.54)], shade(WHITE, 0.75), 0.014)


def downcoat(canvas: Canvas) -> None:
    fill = typical(canvas, (0.7, 1.0), (0.45, 0.9), hue=(0.55, 1.05))
    hem = 0.94 + _jitter(canvas)
    for y in np.linspace(0.14, 0.66, 5):  # sleeves as rolls, each a bit further out
        x = 0.27 - 0.3 * (y - 0.14)
        canvas.mirrored(
            [(x + 0.08, y), (x - 0.06, y + 0.02), (x - 0.1, y + 0.08), (x - 0.06, y + 0.15), (x + 0.08, y + 0.15)],
            shade(fill, 0.9),
        )
    for y in np.linspace(0.12, hem - 0.13, 6):  # trunk as rolls
        bulge = 0.025
        canvas.symmetric([(0.29, y), (0.27 - bulge, y + 0.07), (0.29, y + 0.14)], fill)
        canvas.line([(0.32, y + 0.03), (0.45, y + 0.025)], shade(fill, 1.3), 0.016)
    canvas.line([(0.5, 0.14), (0.5, hem)], shade(fill, 0.5), 0.018)
    fur = mix(fill, (214, 190, 160), 0.8)
    for x in np.linspace(0.34, 0.66, 7):
        canvas.dot((float(x), 0.1 - 0.6 * (0.16**2 - (float(x) - 0.5) ** 2) * 4), 0.05, fur)


def suit(canvas: Canvas) -> None:
    fill = typical(canvas, (0.0, 0.5), (0.1, 0.35), hue=(0.55, 0.72))
    _long_sleeves(canvas, fill, 0.11)
    _body(canvas, fill, 0.86 + _jitter(canvas), flare=0.02)
    canvas.symmetric([(0.42, 0.08), (0.43, 0.2), (0.5, 0.56)], WHITE)
    tie = colour(canvas, (0.5, 1.0), (0.3, 0.9))
    canvas.polygon([(0.47, 0.13), (0.53, 0.13), (0.54, 0.42), (0.5, 0.5), (0.46, 0.42)], tie)
    canvas.mirrored([(0.42, 0.08), (0.33, 0.18), (0.37, 0.26), (0.35, 0.3), (0.5, 0.58)], shade(fill, 1.4))
    for y in (0.62, 0.72):
        canvas.dot((0.51, y), 0.016, shade(fill, 0.4))
    canvas.line([(0.57, 0.4), (0.66, 0.38)], shade(WHITE, 0.9), 0.018)


def shawl(canvas: Canvas) -> None:
    fill = typical(canvas, (0.5, 0.9), (0.5, 0.85), hue=(-0.12, 0.1))
    texture = _stripes_or_none(canvas, fill, ["checks", "dots", "rows"], 0.7)
    bottom = 0.82 + _jitter(canvas)
    for x in np.linspace(0.06, 0.94, 15):  # fringe along both lower edges
        y = bottom - 0.95 * abs(float(x) - 0.5)
        canvas.line([(float(x), y - 0.03), (float(x), y + 0.12)], shade(fill, 0.75), 0.014)
    canvas.polygon([(0.36, 0.12), (0.02, 0.38), (0.5, bottom), (0.98, 0.38), (0.64, 0.12)], fill, texture=texture)
    canvas.line([(0.4, 0.14), (0.5, 0.5), (0.6, 0.14)], shade(fill, 0.6), 0.025)


def dress(canvas: Canvas) -> None:
    fill = typical(canvas, (0.4, 0.9), (0.7, 1.0), hue=(0.8, 1.15))
    texture = _stripes_or_none(canvas, fill, ["dots", "rows", "checks"], 0.45)
    if canvas.rng.random() < 0.5:
        canvas.mirrored([(0.35, 0.06), (0.23, 0.18), (0.29, 0.24), (0.38, 0.2)], shade(fill, 0.95))
    flare = 0.12 + _jitter(canvas, 0.03)
    canvas.symmetric(
        [(0.4, 0.04), (0.36, 0.06), (0.37, 0.22), (0.4, 0.42), (flare, 1.0), (0.46, 1.03)], fill, texture=texture
    )
    canvas.line([(0.4, 0.42), (0.6, 0.42)], shade(fill, 0.55), 0.035)
    _neck(canvas, 0.08, shade(WHITE, 0.9), shade(fill, 0.7))
    for x in (0.3, 0.43, 0.57, 0.7):
        canvas.line([(0.5 + (x - 0.5) * 0.35, 0.46), (x, 0.98)], shade(fill, 0.82), 0.01)


def vest(canvas: Canvas) -> None:
    fill = typical(canvas, (0.0, 0.3), (0.75, 1.0))
    texture = _stripes_or_none(canvas, fill, ["rows"], 0.3)
    hem = 0.88 + _jitter(canvas)
    canvas.symmetric(
        [(0.41, 0.3), (0.385, 0.06), (0.34, 0.06), (0.34, 0.3), (0.28, 0.42), (0.29, hem), (0.46, hem + 0.01)],
        fill, texture=texture,
    )  # fmt: skip
    canvas.line([(0.4, 0.07), (0.42, 0.28), (0.5, 0.32), (0.58, 0.28), (0.6, 0.07)], shade(fill, 0.6), 0.022)
    canvas.line([(0.34, 0.07), (0.34, 0.3), (0.28, 0.42)], shade(fill, 0.6), 0.016)
    canvas.line([(0.66, 0.07), (0.66, 0.3), (0.72, 0.42)], shade(fill, 0.6), 0.016)


def underwear(canvas: Canvas) -> None:
    fill = mix(
        typical(canvas, (0.2, 0.7), (0.6, 1.0), hue=(0.85, 1.05)), (244, 214, 206), float(canvas.rng.uniform(0, 0.6))
    )
    texture = _stripes_or_none(canvas, fill, ["dots"], 0.3)
    if canvas.rng.random() < 0.4:
        skin = SKIN[int(canvas.rng.integers(len(SKIN)))]
        canvas.symmetric([(0.44, -0.05), (0.3, 0.1), (0.32, 0.5), (0.26, 0.8), (0.3, 1.1), (0.48, 1.1)], skin)
    lace = shade(fill, 0.7)
    canvas.mirrored(
        [(0.49, 0.36), (0.44, 0.2), (0.33, 0.18), (0.24, 0.32), (0.3, 0.43), (0.42, 0.44)], fill, texture=texture
    )
    canvas.line([(0.34, 0.19), (0.37, 0.02)], lace, 0.018)
    canvas.line([(0.66, 0.19), (0.63, 0.02)], lace, 0.018)
    canvas.line([(0.24, 0.32), (0.17, 0.36)], lace, 0.02)
    canvas.line([(0.76, 0.32), (0.83, 0.36)], lace, 0.02)
    canvas.symmetric([(0.23, 0.64), (0.25, 0.72), (0.44, 0.9), (0.47, 0.95)], fill, texture=texture)
    canvas.line([(0.23, 0.65), (0.77, 0.65)], lace, 0.02)


GARMENTS: tuple[Callable[[Canvas], None], ...] = (
    t_shirt,
    shirt,
    knitwear,
    chiffon,
    sweater,
    hoodie,
    windbreaker,
    jacket,
    downcoat,
    suit,
    shawl,
    dress,
    vest,
    underwear,
)
