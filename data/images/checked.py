"""Packs of pixels are used where they lie, in a mapped file, and each image's checksum is verified once.

What has been found right is noted in a file, one byte for each image of the pack, for other processes and for later
ones: in deployment, each message starts a new one. The note holds until the machine starts again, or the pack changes.
Bytes only ever change from 0 to 1, so no lock is needed.
"""

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data.images.shared_files import BOOT, CHECKED
from data.stores.pack import PackStore

BLOCK = 64  # images that a thread takes at a time


class Checked:
    """Remembers which images of a pack are as they were packed."""

    def __init__(self, folder: Path, store: PackStore) -> None:
        """`folder` is where the note is; nothing is created yet."""
        hashed = hashlib.sha256(f"{BOOT} {store.state}".encode()).hexdigest()
        self._store = store
        self._note = folder / f"{hashed[:32]}{CHECKED}"
        self._known = np.zeros(len(store.index.keys), np.uint8)

    def damaged(self, rows: np.ndarray, threads: int = 1) -> np.ndarray:
        """Which of these rows of the pack have changed since they were packed, in the order given.

        Raises:
            OSError: The outcome cannot be noted; it is known to this object, so that asking again is cheap.
        """
        fresh = self._unknown(rows)
        if not len(fresh):
            return fresh
        blocks = np.split(fresh, np.arange(BLOCK, len(fresh), BLOCK))
        with ThreadPoolExecutor(max(1, threads)) as pool:
            sound = np.concatenate(list(pool.map(self._store.are_sound, blocks)))
        self._known[fresh[sound]] = 1
        self._write(np.sort(fresh[sound]))
        damaged: np.ndarray = fresh[~sound]
        return damaged

    def _unknown(self, rows: np.ndarray) -> np.ndarray:
        fresh: np.ndarray = rows[self._known[rows] == 0]
        if len(fresh):
            with contextlib.suppress(OSError):  # no note yet
                noted = np.fromfile(self._note, np.uint8, len(self._known))
                self._known[: len(noted)] |= noted == 1
            fresh = rows[self._known[rows] == 0]
        return fresh

    def _write(self, rows: np.ndarray) -> None:
        """Note some rows, in ascending order; a file is as long as its last one needs."""
        if not len(rows):
            return
        self._note.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._note, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
                os.pwrite(descriptor, b"\1" * len(run), run[0])
        finally:
            os.close(descriptor)
