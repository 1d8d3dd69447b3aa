"""Nothing outlives whoever started a keeper, however that ends, and its lock is free only then."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.processes import living, status_of
from tests.import_graph import ROOT

KEEPER = [sys.executable, "-m", "experiments.keeper"]
# Writes its process id to a file named like itself, then sleeps; it is deaf to SIGTERM, but a simulation notes it.
NODE = """
import os, signal, sys, time
name = os.path.basename(sys.argv[0])
def heard(*_):
    open(name + ".heard", "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, heard if name == "flwr-simulation" else signal.SIG_IGN)
with open(name + ".pid", "w") as file:
    file.write(str(os.getpid()))
time.sleep(120)
"""
# A child, a simulation, and a daemon: forked twice, in a session of its own, its parent gone.
TREE = """
import os, subprocess, sys, time
for name in ("child", "flwr-simulation"):
    subprocess.Popen([sys.executable, name])
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execv(sys.executable, [sys.executable, "daemon"])
    os._exit(0)
"""
# A keeper that at its first looks sees none of the processes below it, as where each is forked while its parent ends.
BLIND = """
import sys
from experiments import keeper
looks = iter(range(1000))
see = keeper.below
keeper.below = lambda root: see(root) if next(looks) >= 3 else []
sys.exit(keeper.main(*sys.argv[1:]))
"""
FOREVER = TREE + "time.sleep(120)\n"
NAMES = ("child", "flwr-simulation", "daemon")


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def pids(folder: Path) -> list[int]:
    """Of the whole tree, once it is there."""
    files = [folder / f"{name}.pid" for name in NAMES]
    wait_until(lambda: all(file.is_file() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def is_gone(pid: int) -> bool:
    return status_of(pid) is None


def start(folder: Path, program: str) -> "subprocess.Popen[bytes]":
    """A keeper of a Python program."""
    write_programs(folder)
    return subprocess.Popen(
        [*KEEPER, str(folder), sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def write_programs(folder: Path) -> None:
    for name in NAMES:
        (folder / name).write_text(NODE)


def test_it_ends_all_when_its_pipe_ends_and_asks_simulations_first(tmp_path: Path) -> None:
    with start(tmp_path, FOREVER) as keeper:
        tree = pids(tmp_path)
        assert keeper.stdin is not None
        keeper.stdin.close()
        assert keeper.wait(60) == 128 + signal.SIGKILL
    assert all(map(is_gone, tree))
    assert [name for name in NAMES if (tmp_path / f"{name}.heard").exists()] == ["flwr-simulation"]


def test_it_ends_all_when_it_is_asked(tmp_path: Path) -> None:
    with start(tmp_path, FOREVER) as keeper:
        tree = pids(tmp_path)
        keeper.terminate()
        keeper.wait(60)
    assert all(map(is_gone, tree))


def test_it_ends_what_a_command_leaves_behind(tmp_path: Path) -> None:
    """Which has ended by itself, with a status that is passed on."""
    until_all_run = f"while not all(os.path.exists(name + '.pid') for name in {NAMES}): time.sleep(0.02)\n"
    with start(tmp_path, TREE + until_all_run + "sys.exit(7)\n") as keeper:
        tree = pids(tmp_path)
        assert keeper.wait(60) == 7
    assert all(map(is_gone, tree))


def test_a_command_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    with start(tmp_path, FOREVER) as keeper:
        tree = pids(tmp_path)
        (command,) = (pid for (pid, _), parent in living().items() if parent == keeper.pid and pid not in tree)
        os.kill(command, signal.SIGKILL)
        assert keeper.wait(60) == 128 + signal.SIGKILL
    assert all(map(is_gone, tree))


def test_it_ends_what_it_did_not_see_at_first(tmp_path: Path) -> None:
    write_programs(tmp_path)
    command = [sys.executable, "-c", BLIND, str(tmp_path), sys.executable, "-c", FOREVER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as keeper:
        tree = pids(tmp_path)
        keeper.terminate()
        keeper.wait(60)
    assert all(map(is_gone, tree))


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run([*KEEPER, str(tmp_path), "no-such-command"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1


HOLDER = f"""
import fcntl, os, signal, subprocess, sys
lock = os.open("lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
subprocess.Popen(
    [*{KEEPER!r}, os.getcwd(), sys.executable, "-c", {FOREVER!r}], cwd={str(ROOT)!r}, stdin=subprocess.PIPE,
    start_new_session=True, pass_fds=[lock],
)
print("started", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_is_free_when_nothing_is_left_of_its_holder(tmp_path: Path, how: signal.Signals) -> None:
    write_programs(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=tmp_path, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline()
        tree = pids(tmp_path)
        other = os.open(tmp_path / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.send_signal(how)
        holder.wait(60)
        fcntl.flock(other, fcntl.LOCK_EX)  # waits
        os.close(other)
    assert all(map(is_gone, tree))


def test_nothing_else_is_signalled(tmp_path: Path) -> None:
    """A simulation of somebody else, who happens to have started the keeper as well."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_programs(elsewhere)
    other = subprocess.Popen([sys.executable, "flwr-simulation"], cwd=elsewhere)
    wait_until((elsewhere / "flwr-simulation.pid").is_file)
    with start(tmp_path, FOREVER) as keeper:
        pids(tmp_path)
        keeper.terminate()
        keeper.wait(60)
    assert other.poll() is None
    assert not (elsewhere / "flwr-simulation.heard").exists()
    other.kill()
    other.wait()


def test_it_imports_next_to_nothing() -> None:
    program = (
        "import sys; import experiments.keeper\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('data', 'numpy', 'rich', 'flwr', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
