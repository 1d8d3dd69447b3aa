"""Remembers which images of an import are sound, so that one that was stopped need not decode them again.

A file holds a hash of the dataset, and then the number of each image that was found sound, in 4 bytes. Broken and
suspect images are not in it: they are looked at again, and named again.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.outputs import check_output, write_alone, writing

ROW = np.dtype("<u4")


class Sound:
    """Numbers of images that an earlier start, or this one, found sound."""

    def __init__(self, file: BinaryIO, path: Path, identity: str) -> None:
        head = bytes.fromhex(identity)
        file.seek(0)
        known = file.read()
        if not known.startswith(head):
            file.truncate(0)
            file.write(head)
            known = head
        body = known[len(head) :]
        whole = len(body) // ROW.itemsize * ROW.itemsize  # a kill may cut off the last number
        file.truncate(len(head) + whole)
        self.rows = frozenset(np.frombuffer(body[:whole], ROW).tolist())
        self._file, self._path = file, path

    def add(self, rows: Sequence[int]) -> None:
        self._file.write(np.array(rows, ROW).tobytes())
        self._file.flush()

    def forget(self) -> None:
        """When all is done, or somebody has to repair the dataset."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def remembered(path: Path, identity: str, out: Path) -> Iterator[Sound]:
    """What is known of a dataset's images; the file stays if the block is stopped or fails, as on a full disk.

    Args:
        path: The file.
        identity: A hash of the dataset in hexadecimal digits; what a file says of another one does not count.
        out: What is being written, for a message.

    Raises:
        DataError: The file cannot be written, or another process is at it.
    """
    check_output(path)
    with writing(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            write_alone(file, out)
            sound = Sound(file, path, identity)
            yield sound
            sound.forget()
