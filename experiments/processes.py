"""Which processes there are, below which, and how much memory each takes, as Linux's ``/proc`` has it.

Nothing but the standard library is imported: the keeper reads it, too.
"""

import os
from pathlib import Path

PROC = Path("/proc")
Process = tuple[int, int]  # its id, and its start in clock ticks, since ids are reused


class Descendants:
    """Called, it returns the ids of a process and its descendants that live now.

    A process that was once seen as a descendant remains one after its parent ends: Ray's processes outlive those that
    started them.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: set[Process] = set()

    def __call__(self) -> set[int]:
        parents = living()
        self._known &= parents.keys()
        self._known |= {process for process in parents if process[0] == self._pid}
        while (
            new := {key for key, parent in parents.items() if parent in {pid for pid, _ in self._known}} - self._known
        ):
            self._known |= new
        return {pid for pid, _ in self._known}


def living() -> dict[Process, int]:
    """All processes, each with its parent's id."""
    found: dict[Process, int] = {}
    for name in os.listdir(PROC):  # noqa: PTH208 (iterdir builds a Path for each name)
        if name.isdecimal() and (status := status_of(int(name))):
            found[int(name), status[1]] = status[0]
    return found


def below(root: int) -> list[int]:
    """Ids of the processes below `root`, parents first."""
    children: dict[int, list[int]] = {}
    for (pid, _), parent in living().items():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(root, []))
    for pid in found:  # which grows
        found += children.get(pid, [])
    return found


def status_of(pid: int) -> tuple[int, int] | None:
    """Parent and start of a process; None if it has ended, even if its parent has not asked how."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets; proc(5)
    return None if fields[0] == "Z" else (int(fields[1]), int(fields[19]))


def pss_of(pid: int) -> int:
    """PSS of one process in bytes; 0 if it has ended or belongs to somebody else."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def command_of(pid: int) -> str:
    """Command line of a process; empty if it has ended."""
    return " ".join(words_of(pid)).strip()


def is_simulation(pid: int) -> bool:
    """Whether a process is a run of Flower's: a script, which Python runs."""
    return any(Path(word).name == "flwr-simulation" for word in words_of(pid)[:2])


def words_of(pid: int) -> list[str]:
    """Command line of a process, word by word; empty if it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
