"""Separate machines for a test: network namespaces with their own addresses, or this machine if not permitted."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.superlink import has_ended

SCRIPTS = Path(sys.executable).parent
NETWORK = "10.203.77"


class Hosts:
    """A server and sites on one bridge. Without network namespaces, all are this machine with different ports."""

    def __init__(self, sites: int) -> None:
        """Create the server and this number of sites."""
        self._names = ["link", *(f"site-{number}" for number in range(1, sites + 1))]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.apart = self._make()
        self.address = f"{NETWORK}.1" if self.apart else "127.0.0.1"

    def _make(self) -> bool:
        if shutil.which("ip", path=_path()) is None or os.geteuid() != 0:
            return False
        server = self._namespace("link")
        try:
            _ip("netns", "add", server)
        except subprocess.CalledProcessError:
            return False
        _ip("-n", server, "link", "set", "lo", "up")
        _ip("-n", server, "link", "add", "bridge", "type", "bridge")
        _ip("-n", server, "address", "add", f"{NETWORK}.1/24", "dev", "bridge")
        _ip("-n", server, "link", "set", "bridge", "up")
        for number, name in enumerate(self._names[1:], 2):
            site = self._namespace(name)
            _ip("netns", "add", site)
            _ip("-n", site, "link", "set", "lo", "up")
            # One end at the site, the other at the server's bridge.
            _ip("-n", site, "link", "add", "wire", "type", "veth", "peer", "name", name, "netns", server)
            _ip("-n", site, "address", "add", f"{NETWORK}.{number}/24", "dev", "wire")
            _ip("-n", site, "link", "set", "wire", "up")
            _ip("-n", server, "link", "set", name, "master", "bridge", "up")
        return True

    def start(self, name: str, command: list[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
        """Start a command on a host in its own session, with its output in `log`."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                self._on(name, command), env=_env(env), cwd=log.parent, stdout=out, stderr=out, start_new_session=True
            )
        self._processes.append(process)
        return process

    def run(self, name: str, command: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and wait until it ends."""
        return subprocess.run(
            self._on(name, command), env=_env(env), cwd=cwd, capture_output=True, text=True, timeout=900, check=False
        )

    def stop(self) -> None:
        """End what was started here, the last first, and remove the hosts."""
        for process in reversed(self._processes):
            kill_session(process, signal.SIGTERM)
        if self.apart:
            for name in self._names:
                for pid in self.processes(name):  # daemons that these left behind
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                _ip("netns", "delete", self._namespace(name))

    def processes(self, name: str) -> list[int]:
        """Ids of all processes on a host of its own."""
        return [int(pid) for pid in _ip("netns", "pids", self._namespace(name)).split()]

    def _namespace(self, name: str) -> str:
        return f"c1m{os.getpid()}-{name}"

    def _on(self, name: str, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self._namespace(name), *command] if self.apart else command


def kill_session(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End a process and everything in its session that it leaves behind."""
    members = _session(process.pid)
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in members + _session(process.pid):
        if not has_ended(pid) and _session_of(pid) == process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(leader: int) -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _session_of(int(path.name)) == leader]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _path() -> str:
    return os.pathsep.join([str(SCRIPTS), os.environ["PATH"], "/usr/sbin", "/sbin"])


def _env(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PATH": _path(), "OMP_NUM_THREADS": "1", **more}


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], env=_env({}), check=True, capture_output=True, text=True).stdout
