"""Memory of a process and of all that it started, sampled while it works. Linux.

Counted is PSS, the share of each page that a process would have to itself if whoever maps it paid alike: memory that
processes share, such as libraries, mapped images and Ray's object store, counts once in the sum, and not once for each.
"""

import os
import threading
from pathlib import Path

PROC = Path("/proc")
SECONDS = 0.25  # between two samples; reading a process with PyTorch in it takes some 5 ms
Process = tuple[int, int]  # its id, and its start in clock ticks, since ids are given again


class TreeMemory:
    """``with TreeMemory(pid) as memory: ...`` and then ``memory.peak`` and ``memory.peak_of("name")``, in bytes.

    Whoever was seen as a descendant once stays one, though its parent ends: Ray's processes outlive who started them.

    Attributes:
        peak: The largest sum over all processes that were there at one time.
        samples: How often it was looked.
    """

    def __init__(self, pid: int, seconds: float = SECONDS) -> None:
        """Watch `pid` and its descendants."""
        self._pid = pid
        self._seconds = seconds
        self._known: set[Process] = set()
        self._peaks: dict[Process, int] = {}
        self._commands: dict[Process, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0
        self.samples = 0

    def __enter__(self) -> "TreeMemory":
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
        for process in self._tree():
            pss = pss_of(process[0])
            total += pss
            if pss > self._peaks.get(process, 0):
                self._peaks[process] = pss
                # Anew, since a process starts as a copy of its parent; one that is about to end has none any more.
                self._commands[process] = _command(process[0]) or self._commands.get(process, "")
        self.peak = max(self.peak, total)
        self.samples += 1

    def _tree(self) -> set[Process]:
        """The process and its descendants that live now."""
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
        return set(self._known)


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
