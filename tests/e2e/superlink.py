"""SuperLinks and SuperNodes for one test: separate FLWR_HOME, separate ports, stopped by process id."""

import importlib.util
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from experiments import superlink
from experiments.processes import below, command_of, status_of
from experiments.superlink import free_port

RUN_SECONDS = 2400
ACTOR = "ray::ClientAppActor"
RAY = next(iter(importlib.util.find_spec("ray").submodule_search_locations))  # type: ignore[union-attr,arg-type]
TITLES = {
    "_private/workers/default_worker.py": ACTOR,
    "dashboard/agent.py": "ray::DashboardAgent",
    "_private/runtime_env/agent/main.py": "ray::RuntimeEnvAgent",
}
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
            superlink.write_connection(home, "real", self._port)
        command = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--isolation", "subprocess"]
        if simulation:  # elsewhere every message goes through it, and on a busy disk Flower may lose one
            command += ["--database", str(home / "state.db")]
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
        run_id = str(wait_for(lambda: self._newest(cwd).get("run-id")))
        stopped = self._flwr("stop", run_id, *self._connection, cwd=cwd)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr

    def find(self, command: str) -> list[int]:
        """Ids of the processes started by this SuperLink, directly or not, whose command line holds `command`."""
        return find_below(self._processes[0].pid, command)

    def rays_processes(self) -> dict[int, str]:
        """Ray's processes by id, as `name_in_ray` calls them."""
        return {pid: name for pid in self.find("ray") if (name := name_in_ray(pid))}

    def stop_node(self, number: int) -> None:
        """End one of the nodes, counting from 0 in the order in which they were started."""
        end(self._processes[1 + number])

    def stop(self) -> None:
        """End what this test started, nodes first; each leads its own session, so its children end with it."""
        for process in reversed(self._processes):
            end(process)

    def _status(self, cwd: Path) -> str:
        return str(self._newest(cwd).get("status", ""))

    def _newest(self, cwd: Path) -> dict[str, Any]:
        """What Flower says of the newest run; nothing if it does not answer in time."""
        listed = self._flwr("list", *self._connection, "--format", "json", cwd=cwd).stdout
        return (superlink.runs_in(listed) or [{}])[-1]

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
        if not superlink.is_healthy_in_time(self._port, self._processes[0]):
            self.stop()
            log = (self._home / "superlink.log").read_text(errors="replace")
            raise RuntimeError(f"the SuperLink did not start:\n{log}")


def flower_env(home: Path) -> dict[str, str]:
    """What Flower and Ray need to leave everything outside `home` alone."""
    return {**superlink.environment(home), "XDG_CACHE_HOME": str(home / "cache")}


def wait_for(look: Callable[[], T | None], seconds: float = 900) -> T:
    """Call `look` until its result is true, and return that; once more at the end, which may come in one long pause."""
    deadline, is_last = time.monotonic() + seconds, False
    while not (found := look()) and not is_last:
        is_last = time.monotonic() > deadline
        time.sleep(0.05)
    if found:
        return found
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
    return [pid for pid in (root, *below(root)) if command in command_of(pid)]


def name_in_ray(pid: int) -> str:
    """What one of Ray's processes is: the name of a program, or the title of a worker or an agent; empty for others.

    A script without a title is known by its path: Ray cannot set one if the first variable of the environment has been
    changed, and passes variables on in a random order.
    """
    for word in command_of(pid).split()[:3]:
        if word.startswith("ray::"):
            return word.partition(".")[0]
        if word.startswith(f"{RAY}/"):
            return TITLES.get(word.removeprefix(f"{RAY}/"), Path(word).name)
    return ""


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    return status_of(pid) is None


def pairs(**values: Any) -> str:
    """Run-config pairs as `flwr run -c` takes them."""
    return superlink.pairs({key.replace("_", "-"): value for key, value in values.items()})
