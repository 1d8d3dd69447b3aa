"""Images that are still being decoded: whoever needs some of them waits for those alone."""

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from data.images.pixels import StoredPixels

Error = TypeVar("Error", bound=BaseException)


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

    def close(self) -> None:
        """From now on there are no more."""
        with self._lock:
            self._order = self._order[:0]
            self._taken[:] = True

    def take(self, most: int) -> np.ndarray:
        """The next rows, at most so many; none when all have been taken."""
        with self._lock:
            while self._at < len(self._order):
                rows = self._order[self._at : self._at + most]
                self._at += most
                rows = rows[~self._taken[rows]]
                rows = rows[np.sort(np.unique(rows, return_index=True)[1])]  # a row may be needed several times
                if len(rows):
                    self._taken[rows] = True
                    return rows
            return self._order[:0]


class StoppedError(Exception):
    """Nobody needs the images any more."""


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
        self._so_far = self._none = StoredPixels(np.empty((0, *shape[1:]), np.uint8))
        self._all: StoredPixels | None = None
        self._error: BaseException | None = None
        self._is_stopped = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, args=(load,), name="decoding").start()

    def begin(self, images: np.ndarray) -> Queue:
        """The loader will write into this array, (n, side, side, 3) uint8; it gets the rows to load from the queue."""
        with self._changed:
            self._so_far = StoredPixels(images)
            self._there[:] = False
            self._queue = Queue(len(self))
            self._queue.put_first(self._expected)
            if self._is_stopped:
                self._queue.close()
            return self._queue

    def done(self, rows: np.ndarray) -> None:
        """The loader has written these rows."""
        with self._changed:
            self._there[rows] = True
            self._changed.notify_all()

    def has_all(self) -> bool:
        """Whether the loader has written every row."""
        with self._changed:
            return bool(self._there.all())

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
            self._changed.wait_for(lambda: self._has_ended() or self._there[rows].all())
            images = self._found() if self._has_ended() else self._so_far
        return images.take(rows, out)

    def part(self, start: int, stop: int) -> np.ndarray:
        return self.take(np.arange(start, min(stop, len(self))))

    def whole(self) -> np.ndarray:
        """See `Pixels`; waits until the last image is there."""
        self.finish()
        return self._found().whole()

    def finish(self) -> None:
        """Wait until the last image is there.

        Raises:
            DataError: What the loader refuses.
        """
        with self._changed:
            self._changed.wait_for(self._has_ended)
            self._found()

    def stop(self) -> None:
        """Load no more, and wait until that is so."""
        with self._changed:
            self._is_stopped = True
            self._queue.close()
            self._changed.wait_for(self._has_ended)

    def _has_ended(self) -> bool:
        return self._all is not None or self._error is not None

    def _found(self) -> StoredPixels:
        """All images, or the error: a new one each time, since an error keeps the frames that it passed through."""
        if self._error is not None:
            raise _another(self._error)
        assert self._all is not None
        return self._all

    def _run(self, load: Callable[["Arriving"], np.ndarray]) -> None:
        found, error = None, None
        try:
            found = StoredPixels(load(self))
        except BaseException as raised:  # for those who wait
            error = bare(raised)
        with self._changed:
            self._all, self._error, self._so_far = found, error, self._none
            self._changed.notify_all()


def bare(error: Error) -> Error:
    """The error without the frames that it passed through, which would keep all images in memory."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _another(error: BaseException) -> BaseException:
    try:
        return type(error)(*error.args)
    except Exception:  # it is made of other things than it has
        return error
