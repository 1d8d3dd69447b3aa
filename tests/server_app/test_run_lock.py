"""One process writes a run's folder; the next one is told who that is."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.run_config import ConfigError
from server_app import run_lock
from server_app.run_lock import RunLock, is_in_use
from tests.fakes import CutOffError, cut_off_in, rounds_of, run_in_process
from tests.server_app.test_resume import settings

ROOT = Path(__file__).parents[2]
HOLDER = """
import subprocess, sys
from pathlib import Path
from server_app.run_lock import RunLock
with RunLock() as lock:
    lock.take(Path(sys.argv[1]))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], close_fds=False)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)


def _refused(run_dir: Path) -> str:
    with RunLock() as second, pytest.raises(ConfigError) as caught:
        second.take(run_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_second_process_is_told_who_is_there(tmp_path: Path) -> None:
    with RunLock() as first:
        first.take(tmp_path)
        assert is_in_use(tmp_path)
        who = f"process {os.getpid()} on {re.escape(socket.gethostname())} since [0-9]{{4}}-[0-9-]+ [0-9:]+"
        assert re.fullmatch(
            f"run config: {tmp_path} is in use by {who}; wait until that run ends, or end that process, then start this"
            " one again.",
            _refused(tmp_path),
        )
    assert not is_in_use(tmp_path)
    assert (tmp_path / ".lock").read_text() == ""
    with RunLock() as third:
        third.take(tmp_path)


def test_a_killed_process_frees_the_lock_even_if_its_children_live(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        try:
            assert f"process {holder.pid} on " in _refused(tmp_path)
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it lives
            with RunLock() as lock:
                lock.take(tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[", b"{}", b"[1]", b'{"host": "a"}'])
def test_a_lock_that_does_not_say_whose_it_is_still_holds(tmp_path: Path, content: bytes) -> None:
    with RunLock() as first:
        first.take(tmp_path)
        (tmp_path / ".lock").write_bytes(content)
        assert f"{tmp_path} is in use by another process; wait" in _refused(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_something_else_in_its_place_is_named(tmp_path: Path, make: Any) -> None:
    make(tmp_path / ".lock")
    assert re.search(
        r"/\.lock cannot be opened \(.+\); it must be a file that you may write, or absent\.", _refused(tmp_path)
    )
    assert not is_in_use(tmp_path)


def test_without_locks_the_user_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with caplog.at_level("WARNING", "flwr"), RunLock() as lock:
        lock.take(tmp_path)
    assert f"{tmp_path / '.lock'} cannot be locked (No locks available): make sure yourself" in caplog.text


def test_a_folder_that_another_machine_left_suddenly_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about = {"host": "elsewhere", "pid": 7, "since": "2026-01-31 12:00:00"}
    (tmp_path / ".lock").write_text(json.dumps(about))
    with caplog.at_level("WARNING", "flwr"), RunLock() as lock:
        lock.take(tmp_path)
    assert f"{tmp_path} was last in use by process 7 on elsewhere since 2026-01-31 12:00:00, which did" in caplog.text


@pytest.fixture
def unfinished(tmp_path: Path, tiny_sample: Path) -> Path:
    """Two unfinished runs with one config, of which the newer one is returned."""
    for name in ("run-1", "run-2"):
        with pytest.raises(CutOffError):
            run_in_process(tmp_path, handler=cut_off_in(3), **settings(tiny_sample, run_name=name))
    return tmp_path / "run-2"


@pytest.mark.parametrize("how", ["path", "checkpoint", "auto by name", "auto", "auto before the first checkpoint"])
def test_a_run_in_use_is_not_resumed_nor_is_an_older_one_instead(unfinished: Path, tiny_sample: Path, how: str) -> None:
    if "before" in how:
        shutil.rmtree(unfinished / "checkpoints")
        (unfinished / "checkpoints").mkdir()
    paths = {"path": unfinished, "checkpoint": unfinished / "checkpoints" / "round-00001.safetensors"}
    asked = {"resume": str(paths.get(how, "auto")), "run_name": unfinished.name if "name" in how else ""}
    with RunLock() as other:
        other.take(unfinished)
        before = _content(unfinished.parent)
        with pytest.raises(ConfigError, match=rf"/run-2 is in use by process {os.getpid()} on "):
            run_in_process(unfinished.parent, **settings(tiny_sample, **asked))
        assert _content(unfinished.parent) == before
    if how != "auto before the first checkpoint":
        run_in_process(unfinished.parent, **settings(tiny_sample, **asked))
        assert [line["round"] for line in rounds_of(unfinished)] == [1, 2, 3, 4]


def _content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_auto_leaves_other_runs_in_use_alone(unfinished: Path, tiny_sample: Path) -> None:
    with RunLock() as other:
        other.take(unfinished)
        run_in_process(unfinished.parent, **settings(tiny_sample, run_name="", resume="auto", seed=2))
    assert len(list(unfinished.parent.iterdir())) == 3


def test_a_new_run_holds_its_folder_until_it_ends(tmp_path: Path, tiny_sample: Path) -> None:
    seen: list[bool] = []
    cut_off = cut_off_in(1)

    def handler(message: Any, context: Any) -> Any:
        if message.metadata.message_type == "train":
            seen.append(is_in_use(tmp_path / "run"))
        return cut_off(message, context)

    with pytest.raises(CutOffError):
        run_in_process(tmp_path, handler=handler, **settings(tiny_sample))
    assert seen == [True]
    assert not is_in_use(tmp_path / "run")
