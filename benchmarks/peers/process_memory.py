"""Peak memory of a program with all its processes, wherever they hang in the process tree."""

import contextlib
import threading
from pathlib import Path

from benchmarks.tools.memory import pss_of

INTERVAL_SECONDS = 0.5


def marked(mark: str) -> list[int]:
    """Ids of the processes that have `mark` in their environment, which children inherit, daemons too."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


class PeakMemory:
    """``with PeakMemory(mark) as memory: ...`` and then ``memory.peak``, in bytes, of samples twice a second."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.peak = 0

    def _sample(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self.peak = max(self.peak, sum(map(pss_of, marked(self._mark))))

    def __enter__(self) -> "PeakMemory":
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._sampler.join()
