"""Many small images on one picture, each with a few words below it, for people to look through."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.errors import DataError
from data.text import LONGEST, label
from data.whole_files import replacing

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MOST = 400  # tiles of a sheet: what a viewer opens at once, and a person looks through
SIDE, COLUMNS, LINES = 160, 8, 3
LONGEST_SIDE = 65_000  # pixels of a sheet; JPEG has no more than 65,535
NARROWEST = 640  # pixels: a title has room above a single tile
GAP, FRAME, EDGE = 12, 4, 16
TEXT, TITLE, LEADING = 12, 18, 16  # pixels: letters, those of the title, and from line to line
INK, FAINT, PAPER, BLANK = "#222222", "#555b65", "#ffffff", "#eceef1"
NO_IMAGE = "no image"


@dataclass(frozen=True)
class Tile:
    """One image of a sheet.

    Attributes:
        pixels: (h, w, 3) uint8, of any size, see `fitted`; None for an image that cannot be shown.
        lines: Below the image, at most three; what does not fit is cut.
        mark: The colour of a frame around the image, such as ``#d62728``; empty for none.
    """

    pixels: np.ndarray | None
    lines: tuple[str, ...] = ()
    mark: str = ""


def contact_sheet(tiles: Sequence[Tile], title: str = "", columns: int = COLUMNS, side: int = SIDE) -> Image.Image:
    """Tiles from left to right and from top to bottom, in their order.

    Args:
        tiles: Of more than a sheet has room for, the first are shown, and the sheet says so.
        title: Above the tiles; its lines are cut where they do not fit.
        columns: Tiles beside each other, at least 1.
        side: Pixels of the square that each image is fitted into, at least 32.
    """
    columns = max(1, min(columns, LONGEST_SIDE // (side + GAP) - 1))
    step = side + 2 * FRAME + GAP + LEADING * max((len(tile.lines[:LINES]) for tile in tiles), default=0)
    shown = tiles[: min(MOST, columns * (LONGEST_SIDE // step - 2))]
    heads = [line for line in title.splitlines() if line.strip()]
    if len(shown) < len(tiles):
        heads.append(f"the first {len(shown):,} of {len(tiles):,} images")
    columns = max(1, min(columns, len(shown)))
    top = EDGE + sum(size + GAP for size in (TITLE, *[TEXT] * len(heads))[: len(heads)])
    width = max(NARROWEST, 2 * EDGE + columns * (side + 2 * FRAME + GAP) - GAP)
    sheet = Image.new("RGB", (width, top + -(-len(shown) // columns) * step + EDGE), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = EDGE
    for row, line in enumerate(heads):
        size = TEXT if row else TITLE
        _write(draw, line, (EDGE + FRAME, y + size), width - 2 * EDGE, size, row == 0)
        y += size + GAP
    for place, tile in enumerate(shown):
        x, y = EDGE + place % columns * (side + 2 * FRAME + GAP), top + place // columns * step
        _draw(sheet, draw, tile, (x, y), side)
    return sheet


def save_sheet(
    tiles: Sequence[Tile], path: Path, title: str = "", columns: int = COLUMNS, side: int = SIDE
) -> Image.Image:
    """Write `contact_sheet` to a .png or .jpg file, complete or not at all.

    Raises:
        DataError: The file's name has another ending, or it cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path} must end in .png or .jpg, to be a contact sheet.")
    sheet = contact_sheet(tiles, title, columns, side)
    try:
        with replacing(path) as temporary:
            sheet.save(temporary, FORMATS[path.suffix.lower()], quality=90)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
    return sheet


def fitted(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image as a tile of `side` shows it: whole, with its longer side that long. Photos take less memory this way.

    Args:
        pixels: (h, w, 3) uint8.
        side: In pixels.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _draw(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], side: int) -> None:
    """One tile, whose frame has its upper left corner there."""
    x, y = corner
    outer = (x, y, x + side + 2 * FRAME - 1, y + side + 2 * FRAME - 1)
    draw.rectangle(outer, fill=tile.mark or PAPER)
    x, y = x + FRAME, y + FRAME
    draw.rectangle((x, y, x + side - 1, y + side - 1), fill=BLANK)
    if tile.pixels is None or not tile.pixels.size:
        draw.text((x + side // 2, y + side // 2), NO_IMAGE, FAINT, _font(min(TEXT, side // 5), False), "mm")
    else:
        image = Image.fromarray(fitted(tile.pixels, side))
        sheet.paste(image, (x + (side - image.width) // 2, y + (side - image.height) // 2))
    for row, line in enumerate(tile.lines[:LINES]):
        _write(draw, line, (x, y + side + FRAME + LEADING * (row + 1) - 1), side, TEXT, row == 0)


def _write(draw: ImageDraw.ImageDraw, text: str, where: tuple[int, int], width: int, size: int, is_first: bool) -> None:
    """As much of a text as a line has room for, from there on, which is on its baseline; the first line is bold."""
    font = _font(size, is_first)
    text = label(text, LONGEST)
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}…") > width:
            text = text[:-1]
        text = f"{text.rstrip()}…"
    draw.text(where, text, INK if is_first else FAINT, font, "ls")


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """Matplotlib's DejaVu, found without importing matplotlib; letters that it lacks, such as Chinese, become boxes.

    Laid out by Pillow alone, so that a sheet does not depend on which libraries a machine has.
    """
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / f"DejaVuSans{'-Bold' * bold}.ttf"
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
