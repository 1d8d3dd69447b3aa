"""The images of a visit, and how a batch of them reaches the device that trains."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from data.images.pixels import Pixels, StoredPixels
from learning.batches import ahead, sent


class Images:
    """A client's images, in batches on the device that wants them.

    On a CPU nothing moves. On a GPU that has room for all, each image is copied once, when it is first used, and stays;
    otherwise each batch is copied ahead of its step.
    """

    def __init__(self, source: Pixels | Tensor, device: torch.device, stay: bool = False) -> None:
        """Copies nothing yet.

        Args:
            source: (n, side, side, 3) uint8; a tensor may be on `device` already.
            device: Where batches are wanted.
            stay: Whether `device` has room for all of them.
        """
        self._device = device
        self._here: Tensor | None = None
        self._pixels: Pixels | None = None
        if isinstance(source, Tensor) and source.device.type == device.type:
            self._here = source
        else:
            self._pixels = StoredPixels(source.numpy()) if isinstance(source, Tensor) else source
        self.shape = tuple(source.shape)
        self._missing = np.zeros(len(source), dtype=bool)
        if stay and self._here is None:
            self._here = torch.empty(self.shape, dtype=torch.uint8, device=device)
            self._missing[:] = True

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images.

        Args:
            rows: (batch,) int64 each, on the CPU.

        Yields:
            Images (batch, side, side, 3), or what there is in their place, and their rows (batch,), on the device.
        """
        if not rows:
            return
        # One transfer of all rows instead of one per step.
        moved = sent(torch.cat(list(rows)), self._device).split([len(part) for part in rows])  # type: ignore[no-untyped-call]
        yield from zip(self._chosen(rows, moved), moved, strict=True)

    def in_order(self, size: int) -> Iterator[Tensor]:
        """All of them, `size` at a time."""
        if self._here is None and self._pixels is not None and self._device.type == "cpu":
            return (torch.from_numpy(self._pixels.part(start, start + size)) for start in range(0, len(self), size))
        if self._here is not None and not self._missing.any():
            return iter(self._here.split(size))  # type: ignore[no-untyped-call]
        rows = torch.arange(len(self)).split(size)  # type: ignore[no-untyped-call]
        return (batch for batch, _ in self.batches(rows))

    def _chosen(self, rows: Sequence[Tensor], moved: Sequence[Tensor]) -> Iterator[Tensor]:
        if self._pixels is None:
            return self._resident(moved)
        wanted = torch.cat(list(rows)).numpy()
        self._pixels.expect(wanted)
        if self._here is None:
            return _from(self._pixels, rows, self._device)
        if self._missing[wanted].all():
            return self._arriving(self._pixels, rows, moved)
        if len(late := np.unique(wanted[self._missing[wanted]])):  # what an earlier epoch left out
            parts = torch.from_numpy(late).split(len(rows[0]))  # type: ignore[no-untyped-call]
            for _ in self._arriving(self._pixels, parts, [part.to(self._device) for part in parts]):
                pass
        return self._resident(moved)

    def _resident(self, moved: Sequence[Tensor]) -> Iterator[Tensor]:
        assert self._here is not None
        return (self._here.index_select(0, part) for part in moved)

    def _arriving(self, pixels: Pixels, rows: Sequence[Tensor], moved: Sequence[Tensor]) -> Iterator[Tensor]:
        """Batches that are used now, and stay."""
        assert self._here is not None
        for batch, part, row in zip(_from(pixels, rows, self._device), moved, rows, strict=True):
            self._here.index_copy_(0, part, batch)
            self._missing[row.numpy()] = False
            yield batch


class Features(Images):
    """Features in place of a client's images; those that a device has no room for are sent batch by batch."""

    def __init__(self, values: Tensor, device: torch.device, stay: bool = False) -> None:
        """Send them if they may stay.

        Args:
            values: (n, d) float32, on the CPU or on `device`.
            device: Where batches are wanted.
            stay: Whether `device` has room for all of them.
        """
        self._device = device
        self._values = values
        self._here = values.to(device) if stay or values.device.type == device.type else None
        self.shape = tuple(values.shape)

    def in_order(self, size: int) -> Iterator[Tensor]:
        if self._here is not None:
            return iter(self._here.split(size))  # type: ignore[no-untyped-call]
        return (sent(part, self._device) for part in self._values.split(size))  # type: ignore[no-untyped-call]

    def _chosen(self, rows: Sequence[Tensor], moved: Sequence[Tensor]) -> Iterator[Tensor]:
        if self._here is not None:
            return self._resident(moved)
        return (sent(self._values.index_select(0, part), self._device) for part in rows)


def images_on(source: Images | Pixels | Tensor, device: torch.device) -> Images:
    """`source` itself if it is `Images`, which know their device."""
    return source if isinstance(source, Images) else Images(source, device)


def _from(pixels: Pixels, rows: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    if device.type == "cpu":
        return (torch.from_numpy(pixels.take(part.numpy())) for part in rows)
    return ahead(pixels, rows, device)
