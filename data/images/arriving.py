"""Images that are still being decoded: whoever needs some of them waits for those alone."""

import threading
from collections.abc import Callable

import numpy as np

from data.images.pixels import StoredPixels


class Queue:
    """Rows in the order in which they should be decoded; several threads take from it."""

    def __init__(self, count: int) -> None:
        """All `count` rows, from the first to the last."""
        self._order = np.arange(count)
        self._at = 0
        self._taken = np.zeros(count, dtype=bool)
        self._lock = threading.Lock()

    def put_first(self, rows: np.ndarray) -> None:
        """From now on, take these before all others, in this order."""
        with self._lock:
            self._order = np.concatenate([rows, np.arange(len(self._taken))])
            self._at = 0

    def take(self, most: int) -> np.ndarray:
        """The next rows, at most so many; none when all have been taken."""
        with self._lock:
            while self._at < len(self._order):
                rows = self._order[self._at : self._at + most]
                self._at += most
                rows = rows[~self._taken[rows]]
                if len(rows):
                    self._taken[rows] = True
                    return rows
            return self._order[:0]


class Arriving:
    """Images that a thread of this process loads. It fulfils `data.images.pixels.Pixels`."""

    def __init__(self, shape: tuple[int, int, int, int], load: Callable[["Arriving"], np.ndarray]) -> None:
        """Start loading.

        Args:
            shape: (n, side, side, 3).
            load: Calls `begin` and `done`, and returns all images when they are there.
        """
        self.shape = shape
        self._queue = Queue(shape[0])
        self._expected = np.arange(0)
        self._there = np.zeros(shape[0], dtype=bool)
        self._so_far = StoredPixels(np.empty((0, *shape[1:]), np.uint8))
        self._all: StoredPixels | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._run, args=(load,), name="decoding").start()

    def begin(self, images: np.ndarray) -> Queue:
        """The loader will write into this array, (n, side, side, 3) uint8; it gets the rows to load from the queue."""
        with self._changed:
            self._so_far = StoredPixels(images)
            self._there[:] = False
            self._queue = Queue(len(self))
            self._queue.put_first(self._expected)
            return self._queue

    def done(self, rows: np.ndarray) -> None:
        """The loader has written these rows."""
        with self._changed:
            self._there[rows] = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return self.shape[0]

    def expect(self, rows: np.ndarray) -> None:
        """Say in which order images will be needed."""
        with self._changed:
            self._expected = rows
            self._queue.put_first(rows)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """See `Pixels`.

        Raises:
            DataError: What the loader refuses.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)} images")
        with self._changed:
            self._changed.wait_for(lambda: self._all or self._error or self._there[rows].all())
            if self._error:
                raise self._error
            images = self._all or self._so_far
        return images.take(rows, out)

    def part(self, start: int, stop: int) -> np.ndarray:
        return self.take(np.arange(start, min(stop, len(self))))

    def whole(self) -> np.ndarray:
        """See `Pixels`; waits until the last image is there."""
        with self._changed:
            self._changed.wait_for(lambda: self._all or self._error)
            if self._all is None:
                assert self._error
                raise self._error
            return self._all.whole()

    def _run(self, load: Callable[["Arriving"], np.ndarray]) -> None:
        found, error = None, None
        try:
            found = StoredPixels(load(self))
        except BaseException as raised:  # for those who wait
            error = raised
        with self._changed:
            self._all, self._error = found, error
            self._changed.notify_all()
