"""Sheets of many small images: each where it belongs, whatever its shape, and words that fit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.contact_sheet import (
    BLANK,
    EDGE,
    FRAME,
    GAP,
    MOST,
    NARROWEST,
    Tile,
    contact_sheet,
    save_sheet,
)
from data.errors import DataError

RED, GREEN = (255, 0, 0), (0, 255, 0)
STEP = 32 + 2 * FRAME + GAP  # from tile to tile, of the smallest side, without lines


def plain(colour: tuple[int, int, int], height: int = 8, width: int = 8, mark: str = "") -> Tile:
    return Tile(np.full((height, width, 3), colour, np.uint8), (), mark)


def centre(column: int, row: int) -> tuple[int, int]:
    return EDGE + FRAME + 16 + STEP * column, EDGE + FRAME + 16 + STEP * row


def test_tiles_are_in_their_order_and_rows() -> None:
    tiles = [plain(RED), plain(GREEN), plain(GREEN), plain(RED), plain(GREEN)]
    sheet = contact_sheet(tiles, columns=2, side=32)
    seen = [sheet.getpixel(centre(place % 2, place // 2)) for place in range(5)]
    assert seen == [RED, GREEN, GREEN, RED, GREEN]
    assert sheet.size == (NARROWEST, 2 * EDGE + 3 * STEP)


def test_an_image_is_shown_whole_and_not_stretched() -> None:
    """Twice as wide as high: it fills the square from side to side and half of it from top to bottom."""
    sheet = np.asarray(contact_sheet([plain(RED, 50, 100)], side=32))
    square = sheet[EDGE + FRAME : EDGE + FRAME + 32, EDGE + FRAME : EDGE + FRAME + 32]
    red = (square == RED).all(axis=2)
    assert red.sum(axis=1).tolist() == [0] * 8 + [32] * 16 + [0] * 8


@pytest.mark.parametrize("shape", [(1, 5000, 3), (5000, 1, 3), (1, 1, 3)])
def test_a_line_of_pixels_is_an_image(shape: tuple[int, int, int]) -> None:
    sheet = contact_sheet([Tile(np.full(shape, RED, np.uint8))], side=32)
    assert RED in {colour for _, colour in sheet.getcolors(10_000) or []}


def test_what_cannot_be_shown_has_a_place() -> None:
    tiles = [Tile(None), plain(GREEN), Tile(np.zeros((0, 4, 3), np.uint8))]
    sheet = contact_sheet(tiles, side=32)
    assert sheet.getpixel(centre(1, 0)) == GREEN
    for column in (0, 2):
        x, y = centre(column, 0)
        assert f"#{bytes(sheet.getpixel((x, y - 12))).hex()}" == BLANK  # type: ignore[arg-type]


def test_a_mark_is_a_frame_of_its_colour() -> None:
    sheet = contact_sheet([plain(RED, mark="#00ff00"), plain(RED)], side=32)
    assert sheet.getpixel((EDGE, EDGE)) == GREEN
    assert sheet.getpixel((EDGE + STEP, EDGE)) == (255, 255, 255)


def test_words_stay_below_their_own_image() -> None:
    """The second tile's lines would otherwise be drawn over."""
    long, none = Tile(None, ("w" * 500,) * 3), Tile(None)
    with_words = np.asarray(contact_sheet([long, none], side=32)).astype(int)
    without = np.asarray(contact_sheet([none, none], side=32)).astype(int)
    rows, columns, _ = np.nonzero(with_words[: len(without)] - without)
    assert EDGE + FRAME <= columns.min() <= columns.max() < EDGE + FRAME + 32 + FRAME
    assert rows.min() >= EDGE + FRAME + 32 + FRAME


def test_a_sheet_that_would_be_too_large_says_so() -> None:
    few, many = [plain(RED)] * MOST, [plain(RED)] * (MOST + 1)
    assert contact_sheet(few, side=32).height < contact_sheet(many, side=32).height  # a line more
    assert contact_sheet(many * 5, columns=1, side=500).height < 65_535
    assert contact_sheet(many, columns=10**6, side=500).width < 65_535


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=300), max_size=4), st.integers(0, 3))
def test_any_text_can_be_drawn(title: str, lines: list[str], tiles: int) -> None:
    contact_sheet([Tile(None, tuple(lines))] * tiles, title, side=32)


def test_odd_letters_can_be_drawn() -> None:
    contact_sheet([Tile(None, ("衬衫 قميص 👕", "\udcff\x1b[31m", "a\nb"))], "\udcff\n\n\t衬衫")


def test_files_are_complete_or_absent(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG"):
        save_sheet([plain(RED)], tmp_path / name, side=32)
        with Image.open(tmp_path / name) as found:
            assert found.size == contact_sheet([plain(RED)], side=32).size
    with pytest.raises(DataError, match=r"must end in \.png or \.jpg"):
        save_sheet([], tmp_path / "c.txt")
    with pytest.raises(DataError, match="cannot be written: No such file"):
        save_sheet([], tmp_path / "nowhere" / "c.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.JPG"]
