"""SuperLinks and SuperNodes for one test: separate FLWR_HOME, separate ports, stopped by process id."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

SCRIPTS = Path(sys.executable).parent
RUN_SECONDS = 1200
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """The output of `flwr run --stream`, and the run's status according to Flower."""

    log: str
    status: str


class SuperLink:
    """A SuperLink: simulating, like the one that `flwr run` starts in the background, or for real nodes."""

    def __init__(self, home: Path, working_directory: Path, *, simulation: bool = True) -> None:
        self._home, self._cwd = home, working_directory
        self._port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connection = [] if simulation else ["real"]
        home.mkdir(parents=True, exist_ok=True)
        if not simulation:
            connection = f'[superlink.real]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n'
            (home / "config.toml").write_text(f'[superlink]\ndefault = "real"\n{connection}', encoding="utf-8")
        command = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--isolation", "subprocess", "--database", str(home / "state.db")]
        command += ["--control-api-address", f"127.0.0.1:{free_port()}"]
        self._start(command + ["--simulation"] * simulation, "superlink")
        self._wait_until_healthy()

    def start_node(self, node_config: str) -> None:
        """Start a SuperNode that connects to this SuperLink; `node_config` as for ``--node-config``."""
        name = f"node-{len(self._processes)}"
        command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self._port}"]
        self._start([*command, "--node-config", node_config, "--port", str(free_port())], name)

    def _start(self, command: list[str], name: str) -> None:
        home = self._home if name == "superlink" else self._home / name
        with (self._home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self._env(home), cwd=self._cwd, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)

    def _env(self, home: Path) -> dict[str, str]:
        return {**os.environ, **flower_env(home), "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self._port)}

    def run(self, app: Path, *arguments: str, cwd: Path | None = None) -> Outcome:
        """`flwr run <app> --stream ...`, and wait until it has ended."""
        started = time.monotonic()
        finished = self._flwr("run", str(app), *self._connection, "--stream", *arguments, cwd=cwd or app)
        log = re.sub(r"\x1b\[[0-9;]*m", "", finished.stdout + finished.stderr)
        while time.monotonic() - started < RUN_SECONDS:
            status = self._status(cwd or app)
            if status.startswith("finished"):
                return Outcome(log, status)
            time.sleep(0.5)
        raise TimeoutError(f"the run has not ended after {RUN_SECONDS} s:\n{log}")

    def submit(self, app: Path, *arguments: str) -> int:
        """`flwr run <app>` without waiting; returns the process id of the simulation that it starts."""
        known = set(self.find("flwr-simulation"))
        submitted = self._flwr("run", str(app), *self._connection, *arguments, cwd=app)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        return wait_for(lambda: next(iter(set(self.find("flwr-simulation")) - known), None))

    def stop_run(self, cwd: Path) -> None:
        """`flwr stop` for the newest run."""
        run_id = str(self._newest(cwd)["run-id"])
        stopped = self._flwr("stop", run_id, *self._connection, cwd=cwd)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr

    def find(self, command: str) -> list[int]:
        """Ids of the processes started by this SuperLink, directly or not, whose command line holds `command`."""
        return find_below(self._processes[0].pid, command)

    def rays_processes(self) -> Counter[str]:
        """How many of each of Ray's processes there are: programs and scripts of its package, and named workers."""
        spec = importlib.util.find_spec("ray")
        package = str(Path(spec.origin).parent) if spec and spec.origin else ""
        words = [word for pid in self.find("ray") for word in _command_line(pid).split()[:3]]
        files = [Path(word).name for word in words if word.startswith(package)]
        return Counter(files + [word.partition(".")[0] for word in words if word.startswith("ray::")])

    def stop_node(self, number: int) -> None:
        """End one of the nodes, counting from 0 in the order in which they were started."""
        end(self._processes[1 + number])

    def stop(self) -> None:
        """End what this test started, nodes first; each leads its own session, so its children end with it."""
        for process in reversed(self._processes):
            end(process)

    def _status(self, cwd: Path) -> str:
        return str(self._newest(cwd)["status"])

    def _newest(self, cwd: Path) -> dict[str, Any]:
        listed = self._flwr("list", *self._connection, "--format", "json", cwd=cwd).stdout
        runs: list[dict[str, Any]] = json.loads(listed[listed.index("{") :])["runs"]
        return max(runs, key=lambda run: run["pending-at"])

    def _flwr(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["flwr", *arguments],
            env=self._env(self._home),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def _wait_until_healthy(self) -> None:
        for _ in range(300):
            if self._processes[0].poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        self.stop()
        log = (self._home / "superlink.log").read_text(errors="replace")
        raise RuntimeError(f"the SuperLink did not start:\n{log}")


def flower_env(home: Path) -> dict[str, str]:
    """What Flower and Ray need to leave everything outside `home` alone."""
    return {
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "RAY_USAGE_STATS_ENABLED": "0",
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
    }


def wait_for(look: Callable[[], T | None], seconds: float = 120) -> T:
    """Call `look` until its result is true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"nothing happened within {seconds:g} s")


def end(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a session, and with it everything it started."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def find_below(root: int, command: str) -> list[int]:
    """Ids of the processes that `root` started, directly or not, whose command line holds `command`; or its own."""
    parents = dict(_processes())

    def is_below(pid: int | None) -> bool:
        while pid and pid != root:
            pid = parents.get(pid)
        return bool(pid)

    return [pid for pid in parents if is_below(pid) and command in _command_line(pid)]


def _processes() -> Iterator[tuple[int, int]]:
    """Each process id and its parent's."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def pairs(**values: Any) -> str:
    """Run-config pairs as `flwr run -c` takes them."""
    shown = {key.replace("_", "-"): value for key, value in values.items()}
    return " ".join(
        f"{key}={_quoted(value)}" if isinstance(value, (str, Path)) else f"{key}={str(value).lower()}"
        for key, value in shown.items()
    )


def _quoted(value: str | Path) -> str:
    return f'"{value}"' if "'" in str(value) else f"'{value}'"
