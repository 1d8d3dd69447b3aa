"""A folder of people's own photos, one folder per class, used as it is: a release whose only list is noisy train.

The label of a photo is the folder that it is in, numbered in the order of the folders' names. Its key is its path;
bytes that no key can have are written as in a URL: ``images/T%20Shirt/IMG_0001.jpg``. Orientation tags are obeyed, as
`data.sources.folder` does.
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.images.decode import upright
from data.images.formats import read_suffixes
from data.layout.index import Index
from data.layout.key_files import MAX_KEY_BYTES, PREFIX
from data.photo_folders import find_photos
from data.stores.folder import FolderStore

LOOKED_INTO = 16  # photos, evenly spaced, when a site is told from others
END = 1024  # bytes of each that are looked at, at its begin and at its end
_NOT_IN_KEYS = re.compile(rb"[\x00-\x20%\x7f]")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


class ClassFolderStore(FolderStore):
    """The photos of a folder per class.

    Attributes:
        class_names: In the order of their labels.
        index: Keys and labels.
        left_out: Every other file in the folder, and why it is left out.
    """

    def __init__(self, root: Path, turned: bool = True) -> None:
        """Look through the folder; no photo is opened.

        Args:
            root: The folder.
            turned: Whether photos are turned upright; otherwise they are as in their files.

        Raises:
            DataError: What `data.photo_folders.find_photos` refuses, or a path that is too long for a key.
        """
        super().__init__(root, root)
        photos = find_photos(root, frozenset(read_suffixes()), least=0)
        self.class_names = tuple(photos.classes)
        self.left_out = photos.left_out
        self._turned = turned
        labels = {_key(path, root): label for label, files in enumerate(photos.classes.values()) for path in files}
        self.index = _index(labels, self.class_names)

    def path(self, key: bytes) -> Path:
        escaped = bytes(key).removeprefix(PREFIX)
        return self.images / os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), escaped))

    def encoded(self, key: bytes) -> bytes:
        data = super().encoded(key)
        return upright(data) if self._turned else data

    def contents(self, keys: np.ndarray) -> bytes:
        """Tells other people's photos of the same names apart: by all sizes, and by both ends of a few files."""
        sizes = np.array([_size(self.path(key)) for key in keys.tolist()], "<i8")
        some = np.unique(np.linspace(0, len(keys) - 1, min(len(keys), LOOKED_INTO)).astype(np.int64))
        return hashlib.sha256(sizes.tobytes() + b"".join(self._ends(key) for key in keys[some].tolist())).digest()

    def _ends(self, key: bytes) -> bytes:
        """A hash of the first and the last kilobyte of a file; of nothing if it cannot be read."""
        ends = b""
        with contextlib.suppress(OSError), self.path(key).open("rb") as file:
            ends = file.read(END)
            file.seek(max(0, file.seek(0, os.SEEK_END) - END))
            ends += file.read(END)
        return hashlib.sha256(ends).digest()

    def check_presence(self, keys: np.ndarray, name: str) -> None:
        """They were all there a moment ago."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _key(path: Path, root: Path) -> bytes:
    key = PREFIX + _NOT_IN_KEYS.sub(lambda found: b"%%%02X" % found[0][0], os.fsencode(path.relative_to(root)))
    if len(key) > MAX_KEY_BYTES:
        raise DataError(
            f"{path} has too long a path: below {root} it must have at most {MAX_KEY_BYTES - len(PREFIX)} bytes, or"
            " `python -m data import folder` it."
        )
    return key


def _index(labels: dict[bytes, int], class_names: tuple[str, ...]) -> Index:
    keys = np.array(sorted(labels), bytes)
    noisy = np.array([labels[key] for key in keys.tolist()], np.int16)
    unknown = np.full(len(keys), -1, np.int16)
    stamp = hashlib.sha256(repr((class_names, keys.tolist(), noisy.tolist())).encode()).hexdigest()
    return Index(keys, noisy, unknown, unknown, (len(keys), 0, 0, 0), stamp)
