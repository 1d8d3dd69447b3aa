"""A list of decoded images: rows of a file that is mapped into memory, or of an array."""

from typing import Protocol

import numpy as np


class Pixels(Protocol):
    """What training and evaluation need of n images. None of these changes what other processes see."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, side, side, 3)."""

    def __len__(self) -> int:
        """How many they are: n."""

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy some images, in any order.

        Args:
            rows: (b,) int64, each from 0 to n - 1.
            out: (b, side, side, 3) uint8, C-contiguous, to write to instead of a new array.

        Returns:
            `out`, or a new array like it.

        Raises:
            IndexError: There is no such row.
        """

    def expect(self, rows: np.ndarray) -> None:
        """Say that these, (b,) int64, will be needed first, in this order."""

    def finish(self) -> None:
        """Wait until all are there, or raise what is wrong with one of them."""

    def stop(self) -> None:
        """Say that none will be needed any more."""

    def part(self, start: int, stop: int) -> np.ndarray:
        """Images `start` to `stop` - 1, or to the last, as (b, side, side, 3) uint8: a copy only where it must be."""

    def whole(self) -> np.ndarray:
        """All of them: a copy only where it must be, as in `part`."""


class StoredPixels:
    """Rows of an array (m, side, side, 3) uint8, which may be a mapped file. It fulfils `Pixels`.

    Only a writable array is handed out itself, in views; of a read-only one, such as a pack, `part` and `whole` give
    copies, since PyTorch knows no read-only tensors.
    """

    def __init__(self, base: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Wrap without copying.

        Args:
            base: The array.
            rows: (n,) int64, which of its rows these images are; None: all of them.
        """
        self._base = base
        self._rows = rows

    @property
    def shape(self) -> tuple[int, int, int, int]:
        side, _, colours = self._base.shape[1:]
        return len(self), side, side, colours

    def __len__(self) -> int:
        return len(self._base if self._rows is None else self._rows)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)} images")
        chosen = rows if self._rows is None else self._rows[rows]
        return self._base.take(chosen, 0, out, "clip")  # "raise", the default, fills a buffer first and copies it

    def expect(self, rows: np.ndarray) -> None:
        """They are there."""

    def finish(self) -> None:
        """They are sound."""

    def stop(self) -> None:
        """Nothing is under way."""

    def part(self, start: int, stop: int) -> np.ndarray:
        if self._rows is None and self._base.flags.writeable:
            return self._base[start:stop]
        return self.take(np.arange(start, min(stop, len(self))))

    def whole(self) -> np.ndarray:
        return self.part(0, len(self))
