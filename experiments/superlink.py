"""A simulating SuperLink of an experiment's own, and `flwr run` on it: a home and a port of its own, on loopback.

Whatever is started here is started by a keeper (`experiments.keeper`), so that nothing outlives the process that wanted
it. What benchmarks and tests share with that, to start theirs, are the functions at the end.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from config.run_config import Value
from data.text import one_line
from experiments.errors import ExperimentError
from experiments.processes import below, is_simulation

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
NAME = "own"  # of the connection
START_SECONDS = 300.0
ASKED, ANSWER_SECONDS = 3, 5.0  # how often whether it works, and how long one waits for the answer
STARTED = re.compile(rb"Successfully started run (\d+)")
COLOURS = re.compile(rb"\x1b\[[0-9;]*m")


class SuperLink:
    """One that simulates, from its start to `stop`.

    Attributes:
        keeper: The process above it.
    """

    def __init__(self, home: Path, log: Path, variables: Mapping[str, str], lock: int | None = None) -> None:
        """Start it.

        Args:
            home: Flower's, which is made.
            log: What it prints is added here.
            variables: Of its environment and its runs', besides those that keep Flower in its home.
            lock: A descriptor that stays open until nothing of it is left.

        Raises:
            ExperimentError: It did not start.
        """
        self._home = home
        self._environment = {**os.environ, **environment(home), **variables}
        self._lock = lock
        home.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._others: list[subprocess.Popen[bytes]] = []  # keepers of `flwr` commands
        write_connection(home, NAME, self._port)
        command = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self._port), "--simulation"]
        command += ["--control-api-address", f"127.0.0.1:{free_port()}", "--isolation", "subprocess"]
        with log.open("ab") as file:
            self.keeper = self._kept(command, file)
        if not is_healthy_in_time(self._port, self.keeper):
            self.stop()
            raise ExperimentError(f"Flower's SuperLink did not start ({last_line(log)}); all it said is in {log}.")

    @property
    def is_alive(self) -> bool:
        """Whether anything of it is left."""
        return self.keeper.poll() is None

    def answers(self) -> bool:
        """Whether it still works."""
        return self.is_alive and any(is_healthy(self._port) for _ in range(ASKED))

    def simulations(self) -> list[int]:
        """Process ids of the runs that are running."""
        return [pid for pid in below(self.keeper.pid) if is_simulation(pid)]

    def command(self, app: Path, config: Path, federation: Mapping[str, Value]) -> list[str]:
        """The command of a run: its config is a TOML file, which holds any text."""
        shares = ["--federation-config", pairs(federation)] if federation else []
        return ["flwr", "run", str(app), NAME, "--stream", *shares, "-c", str(config)]

    def run(self, command: list[str], output: BinaryIO) -> int | None:
        """Do a run, and copy to `output` what it prints, without colours, until it ends.

        Returns:
            Flower's id of the run; None if it did not take it.
        """
        run_id = None
        for line in self._printed(command):
            output.write(COLOURS.sub(b"", line))
            output.flush()
            if run_id is None and (found := STARTED.search(line)):
                run_id = int(found[1])
        return run_id

    def status(self, run_id: int) -> str:
        """What Flower says about a run, such as ``finished:completed``; empty if it does not answer."""
        listed = b"".join(self._printed(["flwr", "list", NAME, "--run-id", str(run_id), "--format", "json"]))
        return next((str(run.get("status", "")) for run in runs_in(listed.decode(errors="replace"))), "")

    def _printed(self, command: list[str]) -> Iterator[bytes]:
        """The lines that a command prints, until it or `stop` ends it."""
        keeper = self._kept(command, subprocess.PIPE)
        self._others.append(keeper)
        assert keeper.stdout is not None
        with keeper.stdout:
            yield from keeper.stdout
        end(keeper)
        self._others.remove(keeper)

    def interrupt(self) -> None:
        """Ask all runs to end, which log how to resume."""
        for pid in self.simulations():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def stop(self) -> None:
        """End it with all that it started, and all `flwr` commands."""
        for keeper in (self.keeper, *self._others):
            end(keeper)

    def _kept(self, command: list[str], output: BinaryIO | int) -> "subprocess.Popen[bytes]":
        """Start a command below a keeper, which ends both when this process ends."""
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.keeper", str(self._home), *command],
            env=self._environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, pass_fds=[] if self._lock is None else [self._lock],
        )  # fmt: skip


def end(keeper: "subprocess.Popen[bytes]") -> None:
    """End a keeper with all that is below it."""
    assert keeper.stdin is not None
    keeper.stdin.close()
    keeper.wait()


def environment(home: Path) -> dict[str, str]:
    """What Flower and Ray need to leave everything outside `home` alone, and to tell nobody."""
    return {
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # as `python -m deploy` sets it
        "RAY_USAGE_STATS_ENABLED": "0",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"])),
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
    }


def write_connection(home: Path, name: str, port: int) -> None:
    """Tell `flwr` with this home of a SuperLink on loopback."""
    connection = f'[superlink.{name}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "{name}"\n{connection}', encoding="utf-8")


def is_healthy_in_time(port: int, process: "subprocess.Popen[bytes]", seconds: float = START_SECONDS) -> bool:
    """Wait until a SuperLink answers; False if it has ended, or does not in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if is_healthy(port):
            return True
        time.sleep(0.1)
    return False


def is_healthy(port: int) -> bool:
    """Whether a SuperLink on loopback says that it works."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def runs_in(listed: str) -> list[dict[str, Any]]:
    """The runs that ``flwr list --format json`` has printed, the newest last."""
    try:
        runs: list[dict[str, Any]] = json.loads(listed[listed.index("{") :])["runs"]
    except (ValueError, KeyError):
        return []
    return sorted(runs, key=lambda run: str(run["pending-at"]))


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def pairs(values: Mapping[str, Any]) -> str:
    """Pairs of key and value as `flwr run` takes them after ``-c`` and ``--federation-config``."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in values.items())


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value}"
    return f'"{value}"' if "'" in str(value) else f"'{value}'"


def last_line(log: Path) -> str:
    """The last line that says something, cut."""
    lines = log.read_bytes()[-10_000:].decode(errors="replace").splitlines()
    return one_line(next((line for line in reversed(lines) if line.strip()), ""))
