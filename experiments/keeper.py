"""Runs a command, and ends it with all that it started as soon as whoever asked for it is gone, however it went.

    python -m experiments.keeper FOLDER COMMAND...

Standard input is a pipe whose other end the starting process holds. The kernel closes that end when the process ends,
SIGKILL included, and then the keeper ends everything below itself: it asks the simulations, which log how to resume,
and then it kills. It also does so when it gets SIGTERM, and when the command itself ends, since what that leaves behind
serves nobody. A lock whose descriptor it inherits is therefore free only when nothing of its holder is left.

Processes whose parent ends become children of the keeper (a "child subreaper"), daemons included, so that none is lost
from sight; and it signals none but those below itself.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

from experiments.processes import below, is_simulation

SUBREAPER, WITH_PARENT = 36, 1  # PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG of prctl(2)
LAST_WORDS_SECONDS = 8.0  # Flower gives a simulation five
LOOK_SECONDS = 0.1


def main(folder: str, *command: str) -> int:
    """Run `command` in `folder`; returns its exit status, or 128 and the signal that ended it."""
    prctl = ctypes.CDLL(None).prctl
    prctl(SUBREAPER, 1, 0, 0, 0)
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, ask)
    ended: dict[int, int] = {}
    child = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: prctl(WITH_PARENT, signal.SIGTERM, 0, 0, 0),  # should the keeper itself be killed
    )  # fmt: skip
    while not asked and not _starter_is_gone() and child.pid not in ended:
        _reap(ended)
    _end_all(ended)
    child.returncode = os.waitstatus_to_exitcode(ended[child.pid])  # or Popen would wait for it
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _starter_is_gone() -> bool:
    """Whether standard input has ended; waits for that for a moment."""
    return bool(select.select([0], [], [], LOOK_SECONDS)[0]) and not os.read(0, 1)


def _reap(ended: dict[int, int]) -> bool:
    """Note the wait status of each child that has ended: the command, or an orphan that we adopted.

    Returns:
        Whether a child is left. Without one nothing lives below us, since orphans are adopted: the kernel knows that
        for certain, while `below` reads one process after the other and misses one whose parent ends meanwhile.
    """
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
        return True
    return False


def _end_all(ended: dict[int, int]) -> None:
    """Simulations may say their last words; then all are killed, and again those that they had just started."""
    simulations = [pid for pid in below(os.getpid()) if is_simulation(pid)]
    _signal(simulations, signal.SIGTERM)
    until = time.monotonic() + LAST_WORDS_SECONDS
    while set(simulations) & set(below(os.getpid())) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS / 2)
        _reap(ended)
    while _reap(ended):
        _signal(below(os.getpid()), signal.SIGKILL)
        time.sleep(LOOK_SECONDS / 10)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
