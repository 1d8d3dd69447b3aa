"""One start at a time, and none before all that the last one started is gone."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.errors import ExperimentError
from experiments.lock import locked

WAITS = "import sys; print('there', flush=True); sys.stdin.read()"


def test_a_second_start_waits_and_then_names_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        locked(tmp_path, said.append),
        pytest.raises(ExperimentError, match=r"is in use by process \d+ on .*; wait until they end"),
        locked(tmp_path, said.append, patience=0.1),
    ):
        pass
    assert said == ["Waiting for the processes of the last start to end."]
    with locked(tmp_path, said.append, patience=0.1):
        assert len(said) == 1


def test_what_inherits_the_lock_keeps_it(tmp_path: Path) -> None:
    said: list[str] = []
    with locked(tmp_path, said.append) as lock:
        kept = subprocess.Popen(
            [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock]
        )
        others = subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with kept, others:
        with pytest.raises(ExperimentError, match="or by what that started"), locked(tmp_path, said.append, 0.1):
            pass
        kept.communicate()
        with locked(tmp_path, said.append, 0.1):  # the other one lives, and has no lock
            assert others.poll() is None
        others.communicate()


def test_a_start_that_fails_leaves_no_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, print):
        _ = 1 / 0
    with locked(tmp_path, print, 0.1):
        pass
