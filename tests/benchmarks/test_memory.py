"""Memory of a process tree: known amounts in children and grandchildren, shared pages once."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.tools.memory import PeakMemory, marked
from experiments.processes import Descendants, living, pss_of

MIB = 1 << 20
# Each takes what its first argument says, reports, and waits until its input ends.
HOLD = """
import sys
held = bytearray(int(sys.argv[1]) << 20)
held[::4096] = b"x" * len(held[::4096])
print("held", flush=True)
sys.stdin.read()
"""
SPAWN = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {HOLD!r}, *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)
sys.stdin.read()
child.stdin.close()
child.wait()
"""
MAP = """
import mmap, os, sys
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
sum(held[::4096])
for _ in range(3):
    if not os.fork():
        sum(held[::4096])
        os.write(1, b"held\\n")
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


@contextmanager
def _process(script: str, *arguments: str, reports: int = 1) -> Iterator[int]:
    """The id of a Python process that has reported."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(reports):
            assert process.stdout.readline() == b"held\n"
        yield process.pid
        assert process.stdin
        process.stdin.close()


@pytest.mark.parametrize("script", [HOLD, SPAWN], ids=["itself", "its child in a session of its own"])
def test_what_a_process_takes_is_counted(script: str) -> None:
    with _process(script, "200", "--name=holder") as pid, PeakMemory(Descendants(pid), seconds=60.0) as memory:
        pass
    assert 200 * MIB <= memory.peak < 260 * MIB
    assert 200 * MIB <= memory.peak_of("--name=holder") <= memory.peak
    assert memory.peak_of("no such process") == 0
    assert memory.peak_of("no such process", "--name=holder") == memory.peak_of("--name=holder")


def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    seen = threading.Event()

    class Noting(PeakMemory):
        def _sample(self) -> None:
            super()._sample()
            if self.peak_of("--name=brief") > 100 * MIB:
                seen.set()

    with Noting(Descendants(os.getpid()), seconds=0.01) as memory, _process(HOLD, "100", "--name=brief"):
        assert seen.wait(60)
    assert memory.samples > 2
    assert 100 * MIB <= memory.peak_of("--name=brief") < 130 * MIB


def test_a_process_keeps_its_name_when_its_peak_comes_as_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that share its pages end first, so that its share grows, and a process that ends has no command line."""
    with _process(HOLD, "50", "--name=last") as pid:
        with PeakMemory(Descendants(pid), seconds=60.0) as memory:
            monkeypatch.setattr("benchmarks.tools.memory.command_of", lambda pid: "")
            monkeypatch.setattr("benchmarks.tools.memory.pss_of", lambda pid: 70 * MIB)
        assert memory.peak_of("--name=last") == 70 * MIB


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(b"x" * 100 * MIB)
    with (
        _process(MAP, str(tmp_path / "shared"), reports=3) as pid,
        PeakMemory(Descendants(pid), seconds=60.0) as memory,
    ):
        pass
    assert 100 * MIB <= memory.peak < 160 * MIB


def test_a_process_that_has_ended_takes_nothing() -> None:
    with _process(HOLD, "1") as pid:
        assert pss_of(pid) > MIB
    assert pss_of(pid) == 0
    with PeakMemory(Descendants(pid)) as memory:
        pass
    assert memory.peak == 0


def test_marked_processes_are_found_while_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with _process(HOLD, "1") as ended:
        before = living()  # a list that is out of date as soon as it is made
    monkeypatch.setattr("benchmarks.tools.memory.living", lambda: before | living())
    monkeypatch.setenv("MARK", "of-this-test")
    with _process(HOLD, "1") as pid:
        assert ended in {pid for pid, _ in before}
        assert marked("MARK=of-this-test") == [pid]
