"""Batches of images on the device that needs them, without making it wait."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def epoch_batches(count: int, batch_size: int, drop_last: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """One epoch's shuffled index batches, each (batch,) int64; the incomplete last one may be dropped."""
    order = torch.randperm(count, generator=generator)
    stop = count - count % batch_size if drop_last else count
    for start in range(0, stop, batch_size):
        yield order[start : min(start + batch_size, stop)]


def feed(images: Tensor, batches: Iterator[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Turn index batches into batches of images.

    Args:
        images: (n, height, width, 3) uint8, on the CPU or on `device`.
        batches: (batch,) int64 each, on the CPU.
        device: Where the results go.

    Yields:
        Images of one batch (batch, height, width, 3), and their indices (batch,), on `device`.
    """
    rows = list(batches)
    # One transfer per epoch instead of one per step.
    moved = torch.cat(rows).to(device).split([len(part) for part in rows]) if rows else ()  # type: ignore[no-untyped-call]
    here = images.device.type == device.type
    chosen = (images.index_select(0, part) for part in moved) if here else ahead(images, rows, device)
    for part, batch in zip(moved, chosen, strict=True):
        yield batch, part


def ahead(images: Tensor, rows: list[Tensor], device: torch.device, cuda: Any = torch.cuda) -> Iterator[Tensor]:
    """Batches of images that stay in the host's memory, each copied while the device works on the one before.

    Two pinned buffers take turns, so that the copy needs neither the host nor the stream that computes. A buffer is
    reused once its last copy is complete, and only the host waits for that.

    Args:
        images: (n, height, width, 3) uint8, on the CPU.
        rows: Index batches on the CPU.
        device: A GPU.
        cuda: The GPU's module; `torch.cpu` has the same names and does everything synchronously.
    """
    largest = max(map(len, rows), default=0)
    pinned = device.type == "cuda"
    buffers = [torch.empty((largest, *images.shape[1:]), dtype=images.dtype, pin_memory=pinned) for _ in range(2)]
    copied = [cuda.Event() for _ in buffers]
    side = cuda.Stream(device) if pinned else cuda.Stream()

    def send(number: int) -> Tensor:
        buffer, event = buffers[number % 2][: len(rows[number])], copied[number % 2]
        event.synchronize()
        torch.index_select(images, 0, rows[number], out=buffer)
        with cuda.stream(side):
            batch = torch.empty(buffer.shape, dtype=buffer.dtype, device=device).copy_(buffer, non_blocking=True)
            event.record(side)
        return batch

    ready = None
    for number in range(len(rows) + 1):
        coming = send(number) if number < len(rows) else None
        if ready is not None:
            stream = cuda.current_stream()
            stream.wait_event(copied[(number - 1) % 2])
            if pinned:
                ready.record_stream(stream)  # its memory is the side stream's, which may reuse it after this step
            yield ready
        ready = coming
