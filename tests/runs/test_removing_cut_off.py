"""Removals that are cut off: by a kill, or by Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runs.removing import between_steps
from tests.forks import ROOT
from tests.runs.folders import Said, write_run

KILLED = """
import os, signal, sys
from pathlib import Path
from runs import removing
calls = 0
unlink = os.unlink
def counted(*words, **more):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return unlink(*words, **more)
os.unlink = counted
removing.remove([sys.argv[1]], "", False, sys.argv[3] == "keep", True)
"""


@pytest.mark.parametrize("keep", ["keep", "all"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_leaves_a_run_or_none_and_the_next_removal_tidies_up(
    keep: str, call: int, tmp_path: Path, runs: Callable[..., Said]
) -> None:
    folder = write_run(tmp_path / "all" / "run")
    write_run(tmp_path / "all" / "next")
    (folder / "checkpoints" / "best.safetensors").write_bytes(b"x")
    command = [sys.executable, "-c", KILLED, str(folder), str(call), keep]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if keep == "all":
        assert [one["name"] for one in runs("list", tmp_path / "all", "--json").json] == ["next"]
        assert "left of an interrupted removal" in runs("list", tmp_path / "all").out
        assert runs("remove", tmp_path / "all" / "next", "--yes").code == 0
        assert list((tmp_path / "all").iterdir()) == []
        return
    left = {path.name for path in (folder / "checkpoints").glob("*")}
    assert left in (set(), {"best.safetensors", "round-00002.safetensors"})
    assert runs("remove", folder, "--keep-results", "--yes").code == 0
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.toml", "metrics.jsonl"]


SLOW = """
import shutil, sys, time
from pathlib import Path
from runs import removing
rmtree = shutil.rmtree
def slow(path):
    print("deleting", flush=True)
    sys.stdin.readline()
    rmtree(path)
removing.shutil.rmtree = slow
from runs.__main__ import main
main()
"""


def test_ctrl_c_ends_between_two_runs(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name) for name in ("a", "b", "c")]
    command = [sys.executable, "-c", SLOW, "remove", *map(str, folders), "--yes"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout
        assert "deleting\n" in iter(process.stdout.readline, "")  # up to that line, or to the end
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        out, err = process.communicate("go on\n")
    assert process.returncode == 1
    assert "Removed 1 of 3." in out
    assert err == "python -m runs: stopped after 1 of 3; the others are whole.\n"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["b", "c"]


def test_a_second_ctrl_c_is_heard_at_once() -> None:
    def interrupted() -> None:
        with between_steps() as stop:
            assert not stop()
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert signal.getsignal(signal.SIGINT) == before
