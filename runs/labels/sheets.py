"""Contact sheets of the most doubted images, one for each given class."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.contact_sheet import SIDE, Tile, save_sheet
from data.progress_bar import cpus, progress_bar
from data.text import label
from runs.labels.doubted import Doubted
from runs.labels.photos import Photos
from runs.labels.table import KEEP
from runs.printing import counted, in_percent

FOLDER = "sheets"
DIFFERS = "#d62728"  # of the frame around an image that the model takes for another class
LONGEST = 40  # characters of a class's name in a file's; at most 160 bytes


@dataclass(frozen=True)
class Sheet:
    """One class's.

    Attributes:
        label: The given class.
        file: Below the report's folder.
        images: Of this class, in the ranking.
        differ: How many of them the model takes for another class.
        shown: How many are on the sheet.
        unreadable: How many of those have no picture there.
    """

    label: int
    file: str
    images: int
    differ: int
    shown: int
    unreadable: int


def write_sheets(folder: Path, doubted: Doubted, photos: Photos, top: int) -> list[Sheet]:
    """Write them, by class.

    Args:
        folder: The report's.
        doubted: The ranking.
        photos: Its images.
        top: How many images of each class.

    Raises:
        DataError: A sheet cannot be written, or Ctrl-C.
    """
    (folder / FOLDER).mkdir()
    labels = np.unique(doubted.given).tolist()
    with progress_bar("contact sheets", len(labels), "labels") as advance, ThreadPoolExecutor(cpus()) as pool:
        sheets = []
        for given in labels:
            sheets.append(_write(folder, doubted, photos, given, top, pool))
            advance(1)
    return sheets


def numbered(doubted: Doubted, given: int) -> str:
    """``04 Sweater``: the font of sheets lacks some scripts, such as Chinese, and the number still tells the class."""
    return f"{given:02} {label(doubted.class_names[given])}"


def file_of(given: int, name: str) -> str:
    """``sheets/04-Sweater.jpg``: whatever a class is called, its number tells the files apart."""
    readable = re.sub(r"\W+", "-", name).strip("-")[:LONGEST]
    return f"{FOLDER}/{given:02}-{readable}".rstrip("-") + ".jpg"


def _write(folder: Path, doubted: Doubted, photos: Photos, given: int, top: int, pool: ThreadPoolExecutor) -> Sheet:
    rows = np.flatnonzero(doubted.given == given)
    tiles = list(pool.map(lambda row: tile_of(doubted, photos, row), rows[:top].tolist()))
    unreadable = sum(tile.pixels is None for tile in tiles)
    title = [
        f"{numbered(doubted, given)}: the {len(tiles):,} most doubted of {counted(len(rows), 'image')}",
        "In a red frame: the model takes it for another class. Lower margins are more doubtful.",
    ]
    if unreadable:
        title.append(
            f"{counted(unreadable, 'image')} could not be read" + (": their data is gone." if photos.missing else ".")
        )
    file = file_of(given, doubted.class_names[given])
    save_sheet(tiles, folder / file, "\n".join(title))
    return Sheet(given, file, len(rows), int(doubted.differ[rows].sum()), len(tiles), unreadable)


def tile_of(doubted: Doubted, photos: Photos, row: int) -> Tile:
    """How sure the model is of which class, its mean margin and its line in the table, and which image it is."""
    client, key = int(doubted.clients[row]), bytes(doubted.keys[row])
    name = numbered(doubted, int(doubted.predicted[row])) if doubted.differ[row] else KEEP
    lines = (
        f"{in_percent(doubted.confidence[row])}  {name}",
        f"margin {doubted.margins[row]:.2f}, rank {row + 1:,}",
        photos.name(client, key),
    )
    return Tile(photos.pixels(client, key, SIDE), lines, DIFFERS if doubted.differ[row] else "")
