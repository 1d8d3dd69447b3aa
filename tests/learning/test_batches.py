"""Index batches, and images on their way to a device."""

import threading
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from data.images.pixels import StoredPixels
from learning.batches import ahead, epoch_batches
from task import derived_generator


def _images(count: int) -> torch.Tensor:
    return torch.arange(count * 12, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(count, 2, 2, 3)


def _pixels(images: torch.Tensor) -> StoredPixels:
    return StoredPixels(images.numpy())


def test_batches_cover_an_epoch_once() -> None:
    rows = list(epoch_batches(10, 4, False, derived_generator(1, "x")))
    assert [len(batch) for batch in rows] == [4, 4, 2]
    assert sorted(torch.cat(rows).tolist()) == list(range(10))
    kept = list(epoch_batches(10, 4, True, derived_generator(1, "x")))
    assert [batch.tolist() for batch in kept] == [batch.tolist() for batch in rows[:2]]


@given(st.integers(0, 20), st.integers(1, 6))
def test_batches_sent_ahead_are_the_same(count: int, size: int) -> None:
    """On the CPU's stand-ins for streams; compared after the last was sent, when every buffer had been reused."""
    images = _images(count)
    rows = list(torch.arange(count).split(size)) if count else []
    sent = list(ahead(_pixels(images), rows, torch.device("cpu"), torch.cpu))
    assert [batch.tolist() for batch in sent] == [images[part].tolist() for part in rows]
    with torch.inference_mode():  # which other threads do not share
        sent = list(ahead(_pixels(images), rows, torch.device("cpu"), torch.cpu))
    assert [batch.tolist() for batch in sent] == [images[part].tolist() for part in rows]


class Recorder:
    """`torch.cpu` that records who waits for what."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events = 0

    def Event(self) -> Any:  # noqa: N802
        name, log = f"copy {self.events}", self.log
        self.events += 1

        class Event:
            def synchronize(self) -> None:
                log.append(f"gathering waits for {name}")

            def record(self, stream: Any) -> None:
                log.append(f"{name} ends")

            def __str__(self) -> str:
                return name

        return Event()

    def Stream(self) -> Any:  # noqa: N802
        return torch.cpu.Stream()

    def stream(self, stream: Any) -> Any:
        return torch.cpu.stream(stream)

    def current_stream(self) -> Any:
        log = self.log

        class Computing:
            def wait_event(self, event: Any) -> None:
                log.append(f"step waits for {event}")

        return Computing()


def test_the_next_batch_is_under_way_before_a_step_begins_and_no_buffer_is_written_too_early() -> None:
    cuda = Recorder()
    for number, _ in enumerate(ahead(_pixels(_images(10)), list(torch.arange(10).split(2)), torch.device("cpu"), cuda)):
        cuda.log.append(f"step {number}")
    step = [line for line in cuda.log if not line.startswith("gathering")]
    assert step == [
        "copy 0 ends", "copy 1 ends", "step waits for copy 0", "step 0", "copy 2 ends", "step waits for copy 1",
        "step 1", "copy 0 ends", "step waits for copy 2", "step 2", "copy 1 ends", "step waits for copy 0", "step 3",
        "step waits for copy 1", "step 4",
    ]  # fmt: skip
    # Three buffers: the fourth batch is gathered into the first, after that one's copy was sent.
    waits = [line for line in cuda.log if line.startswith("gathering")]
    assert waits == [f"gathering waits for copy {number}" for number in (0, 1, 2, 0, 1)]
    assert cuda.log.index(waits[3], cuda.log.index(waits[0]) + 1) > cuda.log.index("copy 0 ends")


def test_images_are_gathered_by_another_thread_before_their_step() -> None:
    """The one that launches kernels has no time for it."""
    threads: list[int] = []

    class Watching(Recorder):
        def Event(self) -> Any:  # noqa: N802
            event = super().Event()
            plain = event.synchronize

            def synchronize() -> None:
                threads.append(threading.get_ident())
                plain()

            event.synchronize = synchronize
            return event

    assert len(list(ahead(_pixels(_images(6)), list(torch.arange(6).split(2)), torch.device("cpu"), Watching()))) == 3
    assert threading.get_ident() not in threads
    assert len(threads) == 3
