"""Freed memory stays with the process."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from learning import allocator

# Page faults of allocating and filling 256 MiB four times, before and after, with what a client's process has loaded:
# in a process with little in it the heap does not always grow in place.
FAULTS = """
import resource, torch
import client_app.app
from learning.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(64, 1024, 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
kept = keep_freed_memory()
faults()
print(kept, first, min(faults() for _ in range(3)))
"""


def test_large_blocks_are_reused_instead_of_being_zeroed_by_the_system() -> None:
    """Counted in a separate process, since it cannot be undone."""
    found = subprocess.run(
        [sys.executable, "-c", FAULTS], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    kept, first, later = found.stdout.split()
    assert kept == "True"
    assert int(later) < 0.05 * int(first)


def test_without_glibc_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory.__wrapped__() is False
