"""Photos that a user names, in batches for a model; those that cannot be read are named, and left out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.contact_sheet import fitted
from data.errors import BadImageError
from data.images.decode import resize
from data.images.formats import read_suffixes
from data.images.photo import read_photo
from data.photo_folders import BROKEN, LINK, images_below
from data.user_cache import below_home
from runs.errors import RunsError
from runs.printing import counted

AHEAD = 8  # photos that each thread may be ahead of the model
REASONS = 4  # why files are left out, in a sentence
LINKS = {
    LINK: ("link to a folder, not followed", "links to folders, not followed"),
    BROKEN: ("link that leads nowhere", "links that lead nowhere"),
}


@dataclass(frozen=True)
class Photo:
    """One file.

    Attributes:
        path: As it was named.
        pixels: (size, size, 3) uint8; None if it cannot be read.
        tile: Of its own proportions, as a contact sheet shows it, (h, w, 3) uint8; None without a sheet.
        problem: Why it cannot, a sentence; else empty.
    """

    path: Path
    pixels: np.ndarray | None
    tile: np.ndarray | None = None
    problem: str = ""


def photos_named(named: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files that words on a command line mean: of a folder all images in it and below, sorted; else the file.

    Returns:
        The files, each once, and a sentence for each folder that holds something else.

    Raises:
        RunsError: A word is empty.
        DataError: A folder cannot be read.
    """
    if not all(map(str.strip, named)):
        raise RunsError("PHOTO is empty; it must be an image file, or a folder of them.")
    files: list[Path] = []
    notes = []
    for path in map(below_home, named):
        if path.is_dir():
            left_out: list[tuple[Path, str]] = []
            files += images_below(path, frozenset(read_suffixes()), left_out)
            if left_out:
                notes.append(f"{path}: {counted(len(left_out), 'file')} left out ({_reasons(left_out)}).")
        else:
            files.append(path)
    return list(dict.fromkeys(files)), notes


def _reasons(left_out: Sequence[tuple[Path, str]]) -> str:
    """How many files for each reason, the most frequent first."""
    found = Counter(why for _, why in left_out).most_common()
    words = [f"{count:,} {LINKS[why][count > 1] if why in LINKS else why}" for why, count in found[:REASONS]]
    if rest := sum(count for _, count in found[REASONS:]):
        words.append(counted(rest, "other"))
    return ", ".join(words)


def read_photos(paths: Sequence[Path], size: int, tiles: int = 0) -> Iterator[Photo]:
    """Photos as training sees those of a folder per class (`data.images.loading`), in their order.

    Args:
        paths: Of the files.
        size: Side in pixels.
        tiles: Of how many to keep a small picture as well; whole photos take a lot of memory.
    """

    def read(path: Path, is_shown: bool) -> Photo:
        try:
            pixels = read_photo(path)
            return Photo(path, resize(pixels, size, size), fitted(pixels) if is_shown else None)
        except BadImageError as error:
            return Photo(path, None, problem=str(error))

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), AHEAD * threads):  # `map` alone would read all of them ahead
            part = paths[start : start + AHEAD * threads]
            for photo in pool.map(read, part, [tiles > 0] * len(part)):
                tiles -= photo.tile is not None
                yield photo
