"""A SuperLink on this machine, with real SuperNodes or simulating: a home and ports of its own, on loopback.

They are started as in the README's "On real machines", and stopped by their own process ids. PyTorch is not imported
here, so that its memory does not count for what only starts processes.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.superlink import environment, free_port, is_healthy_in_time, pairs, runs_in, write_connection

__all__ = ["Deployment", "arrivals", "deployment", "pairs"]

LIST_SECONDS = 600
STOP_SECONDS = 20


class Deployment:
    """``with deployment(home, node_configs, {}) as it: it.run(app, "-c", "seed=2", timeout=600)``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        home.mkdir(parents=True)
        write_connection(home, "real", self._port)

    def start(self, node_configs: Sequence[str], node_environment: Mapping[str, str]) -> None:
        """A SuperLink, and a SuperNode for each of `node_configs`, which are as for ``--node-config``.

        Without any it simulates, with as many nodes as a run's ``--federation-config`` says.
        """
        address = ["--host", "127.0.0.1", "--port", str(self._port)]
        control = ["--control-api-address", f"127.0.0.1:{free_port()}"]
        simulation = [] if node_configs else ["--simulation"]
        self._start("superlink", ["flower-superlink", "--insecure", *address, *control, *simulation])
        self._wait_until_healthy()
        for number, node_config in enumerate(node_configs):
            node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self._port}"]
            self._start(
                f"node-{number}", [*node, "--node-config", node_config, "--port", str(free_port())], node_environment
            )

    @property
    def pid(self) -> int:
        """Of the SuperLink, whose descendants do all the work of a simulation."""
        return self._processes[0].pid

    def run(self, app: Path, *arguments: str, timeout: float) -> str:
        """`flwr run <app> real --stream ...`; what it printed, once the run has completed.

        Raises:
            RuntimeError: The run ended otherwise.
            TimeoutError: It has not ended after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        try:
            streamed = self._flwr("run", str(app), "real", "--stream", *arguments, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the run of {app} has not ended after {timeout:g} s.") from None
        log = re.sub(r"\x1b\[[0-9;]*m", "", streamed.stdout + streamed.stderr)
        while not (status := self._status()).startswith("finished"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run of {app} has not ended after {timeout:g} s:\n{log}")
            time.sleep(0.2)
        if status != "finished:completed":
            raise RuntimeError(f"the run of {app} is {status}:\n{log}")
        return log

    def stop(self) -> None:
        """Nodes first; each process leads a session of its own, so that its children end with it."""
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str, command: list[str], more: Mapping[str, str] | None = None) -> None:
        home = self._home / name
        home.mkdir()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **environment(home), **(more or {})}, cwd=home, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)

    def _flwr(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["flwr", *arguments], env={**os.environ, **environment(self._home)}, cwd=self._home, timeout=timeout,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def _status(self) -> str:
        """Of the newest run; empty without one."""
        listed = self._flwr("list", "real", "--format", "json", timeout=LIST_SECONDS)
        if "{" not in listed.stdout:
            raise RuntimeError(f"`flwr list` failed:\n{listed.stdout}{listed.stderr}")
        runs = runs_in(listed.stdout)
        return str(runs[-1]["status"]) if runs else ""

    def _wait_until_healthy(self) -> None:
        if not is_healthy_in_time(self._port, self._processes[0]):
            log = (self._home / "superlink" / "log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the SuperLink did not start:\n{log}")


@contextlib.contextmanager
def deployment(home: Path, node_configs: Sequence[str], node_environment: Mapping[str, str]) -> Iterator[Deployment]:
    """Start one below `home`, which does not exist yet, and stop it in any case."""
    started = Deployment(home)
    try:
        started.start(node_configs, node_environment)
        yield started
    finally:
        started.stop()


@contextlib.contextmanager
def arrivals(path: Path) -> Iterator[list[tuple[float, str]]]:
    """The lines of a file that another process writes, and when each first appeared."""
    seen: list[tuple[float, str]] = []
    ended = threading.Event()

    def look() -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        seen.extend((time.perf_counter(), line) for line in lines[len(seen) :] if line.endswith("\n"))

    def watch() -> None:
        while not ended.wait(0.02):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
        look()
