"""Photos that a user names, in batches for a model; those that cannot be read are named, and left out."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.errors import BadImageError
from data.images.decode import resize
from data.images.formats import read_suffixes
from data.images.photo import read_photo
from data.photo_folders import images_below, in_words
from data.user_cache import below_home
from runs.printing import counted

AHEAD = 8  # photos that each thread may be ahead of the model


@dataclass(frozen=True)
class Photo:
    """One file.

    Attributes:
        path: As it was named.
        pixels: (size, size, 3) uint8; None if it cannot be read.
        problem: Why it cannot, a sentence; else empty.
    """

    path: Path
    pixels: np.ndarray | None
    problem: str = ""


def photos_named(named: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files that words on a command line mean: of a folder all images in it and below, sorted; else the file.

    Returns:
        The files, each once, and a sentence for each folder that holds something else.

    Raises:
        DataError: A folder cannot be read.
    """
    files: list[Path] = []
    notes = []
    for path in map(below_home, named):
        if path.is_dir():
            left_out: list[tuple[Path, str]] = []
            files += images_below(path, frozenset(read_suffixes()), left_out)
            if left_out:
                notes.append(f"{path}: {counted(len(left_out), 'file')} left out ({in_words(left_out)}).")
        else:
            files.append(path)
    return list(dict.fromkeys(files)), notes


def read_photos(paths: Sequence[Path], size: int) -> Iterator[Photo]:
    """Photos as training sees those of a folder per class (`data.images.loading`), in their order.

    Args:
        paths: Of the files.
        size: Side in pixels.
    """

    def read(path: Path) -> Photo:
        try:
            return Photo(path, resize(read_photo(path), size, size))
        except BadImageError as error:
            return Photo(path, None, str(error))

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), AHEAD * threads):  # `map` alone would read all of them ahead
            yield from pool.map(read, paths[start : start + AHEAD * threads])
