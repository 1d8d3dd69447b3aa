"""Batches of images on the device that needs them, without making it wait."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from data.images.pixels import Pixels

GATHERED = 2  # batches that are gathered before their step begins


def epoch_batches(count: int, batch_size: int, drop_last: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """One epoch's shuffled index batches, each (batch,) int64; the incomplete last one may be dropped."""
    order = torch.randperm(count, generator=generator)
    stop = count - count % batch_size if drop_last else count
    for start in range(0, stop, batch_size):
        yield order[start : min(start + batch_size, stop)]


def not_alone(batches: list[Tensor], batch_size: int) -> list[Tensor]:
    """Batches of rows, the last of which joins the one before if it is a single image, which BatchNorm may refuse."""
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        return [*batches[:-2], torch.cat(batches[-2:])]
    return batches


def sent(draws: Tensor, device: torch.device) -> Tensor:
    """A few numbers that were drawn on the CPU, on their way to `device`; the host does not wait for it.

    A plain copy of pageable memory would: until everything before it has been computed.
    """
    if device.type == "cuda":
        draws = draws.pin_memory()
    return draws.to(device, non_blocking=True)


def ahead(pixels: Pixels, rows: Sequence[Tensor], device: torch.device, cuda: Any = torch.cuda) -> Iterator[Tensor]:
    """Batches of images that stay in the host's memory, each copied while the device works on the one before.

    A thread gathers images into pinned buffers: the host is busy with launching the step's kernels, and a device that
    waits for them would wait for the gathering as well. The copies run beside the stream that computes. A buffer is
    reused once its last copy is complete, and only the thread waits for that.

    Args:
        pixels: n images.
        rows: (batch,) int64 each, on the CPU.
        device: A GPU.
        cuda: The GPU's module; `torch.cpu` has the same names and does everything synchronously.
    """
    largest = max(map(len, rows), default=0)
    pinned = device.type == "cuda"
    shape = (largest, *pixels.shape[1:])
    buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(1 + GATHERED)]
    copied = [cuda.Event() for _ in buffers]
    side = cuda.Stream(device) if pinned else cuda.Stream()

    def gather(number: int) -> Tensor:
        slot = number % len(buffers)
        copied[slot].synchronize()
        buffer = buffers[slot][: len(rows[number])]
        pixels.take(rows[number].numpy(), out=buffer.numpy())
        return buffer

    def send(buffer: Tensor, number: int) -> Tensor:
        with cuda.stream(side):
            batch = torch.empty(buffer.shape, dtype=buffer.dtype, device=device).copy_(buffer, non_blocking=True)
            copied[number % len(buffers)].record(side)
        return batch

    with ThreadPoolExecutor(1) as thread:
        gathered = deque(thread.submit(gather, number) for number in range(min(GATHERED, len(rows))))
        ready = None
        for number in range(len(rows) + 1):
            coming = None
            if number < len(rows):
                coming = send(gathered.popleft().result(), number)
                if number + GATHERED < len(rows):
                    gathered.append(thread.submit(gather, number + GATHERED))
            if ready is not None:
                stream = cuda.current_stream()
                stream.wait_event(copied[(number - 1) % len(buffers)])
                if pinned:
                    ready.record_stream(stream)  # its memory is the side stream's, which may reuse it after this step
                yield ready
            ready = coming
