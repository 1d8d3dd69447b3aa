"""Memory of a program with all its processes, sampled while it works. Linux.

What is counted is PSS, which divides each page among the processes that map it: memory that they share, such as
libraries, mapped images and Ray's object store, counts once in the sum instead of once for each.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable

from experiments.processes import PROC, Process, command_of, living, pss_of, status_of

SECONDS = 0.25  # between two samples; reading a process that has loaded PyTorch takes some 5 ms


class PeakMemory:
    """``with PeakMemory(find) as memory: ...`` and then ``memory.peak`` and ``memory.peak_of("name")``, in bytes.

    Attributes:
        peak: The largest sum over all processes that lived at the same time.
        samples: How many were taken.
    """

    def __init__(self, find: Callable[[], Iterable[int]], seconds: float = SECONDS) -> None:
        """`find` returns the ids of the processes that count at that moment: `Descendants(pid)` or `marked(mark)`."""
        self._find = find
        self._seconds = seconds
        self._peaks: dict[Process, int] = {}
        self._commands: dict[Process, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0
        self.samples = 0

    def __enter__(self) -> "PeakMemory":
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def peak_of(self, *words: str) -> int:
        """The largest peak of a single process with one of `words` in its command line; 0 if there was none."""
        found = [key for key, command in self._commands.items() if any(word in command for word in words)]
        return max((self._peaks[key] for key in found), default=0)

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            self._sample()

    def _sample(self) -> None:
        total = 0
        for pid in self._find():
            if not (status := status_of(pid)):
                continue
            process, pss = (pid, status[1]), pss_of(pid)
            total += pss
            if pss > self._peaks.get(process, 0):
                self._peaks[process] = pss
                # Read again, since a process starts as a copy of its parent; one that is ending no longer has any.
                self._commands[process] = command_of(pid) or self._commands.get(process, "")
        self.peak = max(self.peak, total)
        self.samples += 1


def marked(mark: str) -> list[int]:
    """Ids of the processes that have `mark` in their environment, which children inherit, daemons included."""
    found = []
    for pid, _ in living():
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if mark.encode() in (PROC / str(pid) / "environ").read_bytes():
                found.append(pid)
    return found
