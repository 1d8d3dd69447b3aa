"""A local SuperLink of a test's own: own FLWR_HOME, own port, stopped by its own process id."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
RUN_SECONDS = 1200


@dataclass(frozen=True)
class Outcome:
    """What `flwr run --stream` printed, and the run's status by Flower's own account."""

    log: str
    status: str


class LocalSuperLink:
    """What `flwr run` would start in the background by itself, but with an owner."""

    def __init__(self, home: Path, working_directory: Path) -> None:
        self._port = _free_port()
        self._env = {
            **os.environ,
            "FLWR_HOME": str(home),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self._port),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "XDG_CACHE_HOME": str(home / "cache"),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        }
        home.mkdir(parents=True, exist_ok=True)
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--control-api-address", f"127.0.0.1:{_free_port()}", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--database", str(home / "state.db")]
        with (home / "superlink.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._env, cwd=working_directory, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_healthy(home / "superlink.log")

    def run(self, app: Path, *arguments: str, cwd: Path | None = None) -> Outcome:
        """`flwr run <app> --stream ...`, and wait until it has ended."""
        started = time.monotonic()
        finished = self._flwr("run", str(app), "--stream", *arguments, cwd=cwd or app)
        log = re.sub(r"\x1b\[[0-9;]*m", "", finished.stdout + finished.stderr)
        while time.monotonic() - started < RUN_SECONDS:
            status = self._status(cwd or app)
            if status.startswith("finished"):
                return Outcome(log, status)
            time.sleep(0.5)
        raise TimeoutError(f"the run has not ended after {RUN_SECONDS} s:\n{log}")

    def stop(self) -> None:
        """End the SuperLink and what it started: they share its session, which this test made."""
        group = os.getpgid(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(group, signal.SIGKILL)
            self._process.wait()

    def _status(self, cwd: Path) -> str:
        listed = self._flwr("list", "--format", "json", cwd=cwd).stdout
        runs = json.loads(listed[listed.index("{") :])["runs"]
        return str(max(runs, key=lambda run: run["pending-at"])["status"])

    def _flwr(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = ["flwr", *arguments]
        return subprocess.run(
            command, env=self._env, cwd=cwd, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )

    def _wait_until_healthy(self, log: Path) -> None:
        for _ in range(300):
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"the SuperLink did not start:\n{log.read_text(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
