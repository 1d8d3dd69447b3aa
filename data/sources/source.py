"""What every kind of dataset becomes before it is imported: class names, lists, and a way to each image."""

import hashlib
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.text import printable

MOST_BYTES = 1 << 30  # of an image file; several are in memory at a time


@dataclass(frozen=True)
class Listed:
    """Images of one list.

    Attributes:
        origins: Where each is in the dataset, such as its path in it; no two images of a dataset have the same.
        keys: By which the release will know each of them, in the released form; see `numbered_keys`.
        true: (n,) int64 class that the image shows; -1 where nobody knows, `data.layout.finding.WRONG` where no more is
            known than that the noisy label is wrong.
        noisy: (n,) int64 noisy label, -1 where it has none. In noisy train each has one.
        groups: (n,) int64 number of whoever or wherever it comes from; None if the dataset does not say.
    """

    origins: Sequence[str]
    keys: Sequence[str]
    true: np.ndarray
    noisy: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Source:
    """A dataset.

    Attributes:
        root: The folder or file that it was read from.
        class_names: In the order of their labels.
        splits: By name, some of `data.layout.finding.SPLITS`.
        encoded: The image file of an origin, as it is in the dataset; called by several threads. It raises OSError or
            DataError if there is none.
        left_out: What else is in the dataset, and why it is not imported.
        group_names: Of whoever or wherever images come from, by their numbers.
        side: Of the images, if all are square pixels of one size, which lose nothing in a pack of pixels; else 0.
        own: Whether these are people's own photos: they are turned upright and saved as JPEGs, and a broken one is
            refused. Files of published datasets stay as they are, byte for byte, and a few broken ones are left out.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: Mapping[str, Listed]
    encoded: Callable[[str], bytes]
    left_out: Sequence[tuple[Path, str]] = ()
    group_names: tuple[str, ...] = ()
    side: int = 0
    own: bool = False

    def place(self, origin: str) -> Path:
        """Where an image is, for a message."""
        return self.root / origin

    @property
    def identity(self) -> str:
        """A hash of all but the images themselves, which must be the same to resume an import."""
        seen = hashlib.sha256(repr((self.class_names, self.group_names, self.side, self.own)).encode())
        for name, listed in self.splits.items():
            seen.update(repr((name, list(listed.origins), list(listed.keys))).encode())
            for array in (listed.true, listed.noisy, listed.groups):
                seen.update(b"-" if array is None else np.ascontiguousarray(array, "<i8").tobytes())
        return seen.hexdigest()


def files_below(root: Path) -> Callable[[str], bytes]:
    """`Source.encoded` of a dataset whose images are files: their origins are their paths in it."""
    return lambda origin: read_image(root / origin)


def read_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        OSError: It cannot be read.
        DataError: It is no file, such as a pipe, which would be waited for, or too long for an image.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{printable(path)} cannot be read: it is not a file.")
    if status.st_size > MOST_BYTES:
        raise DataError(f"{printable(path)} cannot be read: it is longer than {MOST_BYTES:,} bytes.")
    return path.read_bytes()


def numbered_keys(kind: str, origins: Sequence[str], first: int = 0) -> list[str]:
    """Keys in the released form for images of a published dataset, the same on every machine that imports it.

    A key belongs to one image in the world: its first number is a hash of dataset and origin. The second one is the
    image's number, by which people find it again.

    Args:
        kind: The dataset.
        origins: Of the images.
        first: The number of the first of them; lists of one dataset must not share any.
    """
    keys = []
    for number, origin in enumerate(origins, first):
        seen = hashlib.sha256(f"{kind}\0{origin}".encode("utf-8", "surrogateescape")).digest()
        keys.append(f"images/{number % 1000 // 100}/{number % 100:02}/{int.from_bytes(seen[:4], 'big')},{number}.jpg")
    return keys


def table_of_origins(splits: Mapping[str, Listed]) -> str:
    """The text of `ORIGINALS`: key, tab, origin of each image, in the order of their keys."""
    pairs = sorted(pair for listed in splits.values() for pair in zip(listed.keys, listed.origins, strict=True))
    return "".join(f"{key}\t{printable(origin)}\n" for key, origin in pairs)
