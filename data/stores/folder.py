"""Where the encoded images of a release are: the `Store` protocol, and image folders as released."""

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data.errors import BadImageError, DataError
from data.layout.alike import instead_of
from data.layout.finding import why_all_missing
from data.layout.key_files import PREFIX, show

# What the machine lacks: no fault of the file.
BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT)
PRESENCE_SAMPLE = 200  # images looked for when a split is first read


class Store(Protocol):
    """What a release needs from the place that its images are in."""

    def encoded(self, key: bytes) -> bytes:
        """The bytes of one image file.

        Raises:
            BadImageError: The image is not there, or cannot be read.
            DataError: The machine cannot read any.
        """
        ...

    def place(self, key: bytes) -> str:
        """Where the image is, for a message."""
        ...

    def mark(self, keys: np.ndarray) -> bytes:
        """Changes when one of these images does, as far as can be told without reading them."""
        ...

    def check_presence(self, keys: np.ndarray, name: str) -> None:
        """Look for a few evenly spaced images of a list, to fail before training rather than in it.

        Raises:
            DataError: Some are missing.
        """
        ...


class FolderStore:
    """A million small files."""

    def __init__(self, root: Path, images: Path) -> None:
        """`root` is the release's folder, `images` the one of the image folders ``0`` to ``9``."""
        self.root = root
        self.images = images

    def path(self, key: bytes) -> Path:
        return self.images / os.fsdecode(bytes(key).removeprefix(PREFIX))

    def place(self, key: bytes) -> str:
        return str(self.path(key))

    def encoded(self, key: bytes) -> bytes:
        try:
            with open(self.path(key), "rb", opener=_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BadImageError(f"image {show(key)} is no file; it must be a whole one, at {self.path(key)}.")
                return file.read()
        except FileNotFoundError:
            instead = instead_of(self.path(key))
            raise BadImageError(
                f"image {show(key)} is missing; it must be at {self.path(key)}" + f" ({instead})" * bool(instead) + "."
            ) from None
        except OSError as error:
            raise (DataError if error.errno in BUSY else BadImageError)(
                f"image {show(key)} cannot be read from {self.path(key)} ({error.strerror}); it must be a whole image"
                " file."
            ) from None

    def mark(self, keys: np.ndarray) -> bytes:
        """Sizes and times of the files."""
        seen = hashlib.sha256(os.fsencode(self.images.resolve()))
        for key in keys:
            try:
                status = self.path(key).stat()
            except OSError:
                continue  # decoding will report it
            seen.update(b"%d %d %d " % (status.st_size, status.st_mtime_ns, status.st_ino))
        return seen.digest()

    def check_presence(self, keys: np.ndarray, name: str) -> None:
        rows = np.linspace(0, len(keys) - 1, min(len(keys), PRESENCE_SAMPLE)).astype(np.int64)
        missing = self._missing(keys[rows])
        if not missing:
            return
        advice = "unpack the tars again, since a partial download cannot be used"
        if instead := instead_of(self.path(missing[0])):
            advice = instead
        elif len(missing) == len(rows):
            advice = why_all_missing(self.root, self.images, show(missing[0]))
        raise DataError(
            f"{len(missing)} of the {len(rows)} images looked for from {name} are missing, the first at"
            f" {self.path(missing[0])}; {advice}."
        )

    def _missing(self, keys: Sequence[bytes] | np.ndarray) -> list[bytes]:
        missing = []
        for key in keys:
            path = self.path(key)
            try:
                if not path.is_file():
                    missing.append(bytes(key))
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}; every image must be readable.") from None
        return missing


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe without waiting for somebody to write to it; for files it changes nothing."""
    return os.open(path, flags | os.O_NONBLOCK)
