"""Measures the mean and deviation of each colour channel over the training images of a release.

Sums are exact whole numbers, so the result is the same bit for bit with any number of threads and however the images
are cut into blocks. It is kept in the user's cache folder, beside the index of the release, until the lists, the image
files, or the size change.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import BadImageError, DataError
from data.images.decode import DECODER
from data.images.loading import load_images
from data.normalization import Normalization
from data.release import Release, Split
from data.stores.pack import PackStore
from data.user_cache import cache_folder
from data.whole_files import replace_file

VERSION = "1"  # of the arithmetic below and of the file; another one measures anew
MOST_IMAGES = 50_000  # more would change the fourth digit at most, and take hours on a million photos
BLOCK_BYTES = 48 << 20  # of decoded images at a time
DIGITS = 6
LARGEST_FILE = 10_000  # bytes; what is written is a tenth of it


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        normalization: Rounded to 6 digits.
        images: On how many images; evenly spaced ones of a longer list.
        unreadable: How many could not be read and were left out; the first one's sentence follows.
        first: Empty if all could be read.
    """

    normalization: Normalization
    images: int
    unreadable: int = 0
    first: str = ""


def channels_of(
    release: Release,
    split: Split,
    size: int,
    threads: int = 1,
    *,
    leave_out: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> Measured:
    """Mean and deviation of each channel over a list, from the cache or measured.

    Args:
        release: Where the images are.
        split: The list, at least one image.
        size: Side in pixels at which they are decoded; a pack of decoded pixels is taken as it is.
        threads: How many decode at a time.
        leave_out: Whether images that cannot be read are left out rather than refused.
        done: Hears how many more images have been read.

    Raises:
        BadImageError: An image cannot be read, and is not to be left out.
        DataError: None can be read; or a channel has the same value everywhere, by which nothing can be divided.
    """
    keys = split.keys[spaced(len(split.keys))]
    side = decoded_side(release) or size
    stamp = _stamp(release, split, keys, side)
    path = _path(release, split, side)
    found = _kept(path, stamp)
    if found is None or (found.unreadable and not leave_out):
        found = _measured(release, split, keys, side, threads, leave_out, done)
        with contextlib.suppress(OSError):  # otherwise the next run measures again
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _as_file(found, stamp))
    return found


def spaced(count: int, most: int = MOST_IMAGES) -> np.ndarray:
    """(min(count, most),) int64 rows of a list of `count`, evenly spaced, in order, each once."""
    taken = min(count, most)
    return np.arange(taken, dtype=np.int64) * count // max(taken, 1)


def decoded_side(release: Release) -> int:
    """Side of the pixels in a pack of decoded images; 0 of all other releases, whose images have any size."""
    return release.store.decoded_size if isinstance(release.store, PackStore) else 0


class Sums:
    """Exact sums of the values of each channel, and of their squares."""

    def __init__(self) -> None:
        self._pixels = 0
        self._values, self._squares = [0, 0, 0], [0, 0, 0]

    def add(self, images: np.ndarray) -> None:
        """Count (n, h, w, 3) uint8 images."""
        self._pixels += images[..., 0].size
        for channel in range(3):
            values = images[..., channel]
            self._values[channel] += int(values.sum(dtype=np.uint64))
            squares = np.square(values, dtype=np.uint16)  # at most 65,025, which 16 bits hold
            self._squares[channel] += int(squares.sum(dtype=np.uint64))

    def numbers(self) -> tuple[list[float], list[float]]:
        """Means and deviations of all n pixels (divided by n, not n - 1), of values from 0 to 1, to 6 digits."""
        count = self._pixels
        means = [round(values / (255 * count), DIGITS) for values in self._values]
        # n² times the variance is a whole number, and Python divides whole numbers of any size correctly rounded.
        spreads = [count * squares - values**2 for values, squares in zip(self._values, self._squares, strict=True)]
        return means, [round(math.sqrt(spread / count**2) / 255, DIGITS) for spread in spreads]


def _measured(
    release: Release,
    split: Split,
    keys: np.ndarray,
    side: int,
    threads: int,
    leave_out: bool,
    done: Callable[[int], None],
) -> Measured:
    sums, bad = Sums(), list[str]()
    step = max(1, BLOCK_BYTES // (3 * side * side))
    for start in range(0, len(keys), step):
        block = keys[start : start + step]
        try:
            sums.add(load_images(release, block, side, threads))
        except BadImageError:
            if not leave_out:
                raise
            for row in range(len(block)):
                try:
                    sums.add(load_images(release, block[row : row + 1], side))
                except BadImageError as error:
                    bad.append(str(error))
        done(len(block))
    if len(bad) == len(keys):
        raise DataError(f"none of {len(bad)} images of {split.name} can be read; the first: {bad[0]}")
    means, deviations = sums.numbers()
    for name, deviation in zip(("red", "green", "blue"), deviations, strict=True):
        if not deviation:
            raise DataError(
                f"the training images in {release.root} have the same {name} everywhere (a deviation of 0), by which"
                " nothing can be divided; 'normalization' must be another one than release, or 'normalization-args'"
                " must give mean and deviation."
            )
    numbers = Normalization.of({"mean": means, "deviation": deviations})
    return Measured(numbers, len(keys) - len(bad), len(bad), bad[0] if bad else "")


def _path(release: Release, split: Split, side: int) -> Path:
    about = os.fsencode(release.root.resolve()) + f"\0{split.name} {side}".encode()
    return cache_folder("index", f"{hashlib.sha256(about).hexdigest()[:16]}.channels.json")


def _stamp(release: Release, split: Split, keys: np.ndarray, side: int) -> str:
    """Changes with the list, the size, and the image files, as far as that can be told without reading them."""
    about = f"{VERSION} {DECODER} {side} {split.name} {len(split.keys)} {keys.dtype}".encode()
    listed = hashlib.sha256(np.ascontiguousarray(keys).tobytes()).digest()
    return hashlib.sha256(about + listed + release.store.mark(keys)).hexdigest()


def _as_file(measured: Measured, stamp: str) -> bytes:
    mean, deviation = map(list, measured.normalization)
    facts = [stamp, mean, deviation, measured.images, measured.unreadable, measured.first]
    return json.dumps({"facts": facts, "sha256": _checksum(facts)}).encode()


def _kept(path: Path, stamp: str) -> Measured | None:
    """What a file of `_as_file` holds; None if there is none with this stamp, or if it is damaged or another's."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:  # a pipe would be waited for
            return None
        kept = json.loads(path.read_bytes())
        facts = kept["facts"]
        if kept["sha256"] != _checksum(facts):
            return None
        marked, mean, deviation, images, unreadable, first = facts
        numbers = Normalization.of({"mean": mean, "deviation": deviation})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Measured(numbers, images, unreadable, first) if marked == stamp else None


def _checksum(facts: list[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
