"""Memory of a program with all its processes, sampled while it works. Linux.

What is counted is PSS, which divides each page among the processes that map it: memory that they share, such as
libraries, mapped images and Ray's object store, counts once in the sum instead of once for each.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")
SECONDS = 0.25  # between two samples; reading a process that has loaded PyTorch takes some 5 ms
Process = tuple[int, int]  # its id, and its start in clock ticks, since ids are reused


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

    def peak_of(self, word: str) -> int:
        """The largest peak of a single process with `word` in its command line; 0 if there was none."""
        return max((self._peaks[key] for key, command in self._commands.items() if word in command), default=0)

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            self._sample()

    def _sample(self) -> None:
        total = 0
        for pid in self._find():
            if not (status := _status(pid)):
                continue
            process, pss = (pid, status[1]), pss_of(pid)
            total += pss
            if pss > self._peaks.get(process, 0):
                self._peaks[process] = pss
                # Read again, since a process starts as a copy of its parent; one that is ending no longer has any.
                self._commands[process] = _command(pid) or self._commands.get(process, "")
        self.peak = max(self.peak, total)
        self.samples += 1


class Descendants:
    """Called, it returns the ids of a process and its descendants that live now.

    A process that was once seen as a descendant remains one after its parent ends: Ray's processes outlive those that
    started them.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: set[Process] = set()

    def __call__(self) -> set[int]:
        parents: dict[Process, int] = {}
        for name in os.listdir(PROC):  # noqa: PTH208 (iterdir builds a Path for each name)
            if name.isdecimal() and (status := _status(int(name))):
                parents[int(name), status[1]] = status[0]
        self._known &= parents.keys()
        self._known |= {process for process in parents if process[0] == self._pid}
        while (
            new := {key for key, parent in parents.items() if parent in {pid for pid, _ in self._known}} - self._known
        ):
            self._known |= new
        return {pid for pid, _ in self._known}


def marked(mark: str) -> list[int]:
    """Ids of the processes that have `mark` in their environment, which children inherit, daemons included."""
    found = []
    for environment in PROC.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if mark.encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


def pss_of(pid: int) -> int:
    """PSS of one process in bytes; 0 if it has ended or belongs to somebody else."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _status(pid: int) -> tuple[int, int] | None:
    """Parent and start of a process; None if it has ended."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets; proc(5)
    return int(fields[1]), int(fields[19])


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
