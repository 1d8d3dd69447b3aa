"""The output of `python -m deploy init`, started for real on loopback: TLS, registered keys, a run, a restart."""

import os
import shutil
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.sample import draw_sample
from deploy.folders import init
from deploy.settings import Deployment
from experiments.superlink import SCRIPTS, free_port
from tests.e2e.superlink import pairs, wait_for
from tests.fakes import rounds_of

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
NODES = ("node-1", "node-2")
SETTINGS = {
    "model": "resnet18", "image_size": 32, "stem": "imagenet",
    "batch_size": 8, "num_server_rounds": 1, "fraction_train": 1.0,
    "precision": "fp32", "strategy_args": "min-available-nodes=2",
    "round_timeout": 200.0,  # on a busy disk Flower's database may lose a reply
}  # fmt: skip


class Federation:
    """The scripts of one deployment, each in the background with a log, stopped by process id."""

    def __init__(self, place: Path) -> None:
        self.port = free_port()
        self.folder = place / "our keys"
        self._place = place
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        init(self.folder, Deployment("sites", "localhost", self.port, (), NODES, "1.41.0"), 30)
        self._environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(place / "cache"),
            "OMP_NUM_THREADS": "1",
            "NODE_RETRY_SECONDS": "1",
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self, name: str, script: str, *arguments: str | Path) -> None:
        environment = {**self._environment, "NODE_PORT": str(free_port())}
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(self.folder / script), *map(str, arguments)],
                env=environment, cwd=self._place, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, name: str) -> int:
        """The exit code of a script that ends by itself."""
        return self._running[name].wait(timeout=600)

    def stop_all(self) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def log(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")

    def _log(self, name: str) -> Path:
        return self._place / f"{name}.log"

    def operator(self, script: str, *arguments: str, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [str(self.folder / "operator" / script), *arguments],
            env={**self._environment, **more}, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self, path: str, port: int) -> int:
        """HTTP status of an empty POST by a client that trusts the authority, or 0 if nobody answers yet."""
        context = ssl.create_default_context(cafile=str(self.folder / "node-1" / "ca.crt"))
        request = urllib.request.Request(f"https://localhost:{port}{path}", data=b"")
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    started = Federation(tmp_path)
    try:
        yield started
    finally:
        started.stop_all()


def test_sites_with_their_own_data_train_over_tls(federation: Federation, tmp_path: Path) -> None:
    for seed, node in enumerate(NODES):
        draw_sample(tmp_path / f"site of {node}", train=40, clean_train=8, val=8, test=20, image_size=32, seed=seed)
    federation.start("superlink", "superlink/start.sh")
    wait_for(lambda: federation.status("/health", federation.port))
    for node in NODES:
        federation.start(node, f"{node}/start.sh", tmp_path / f"site of {node}", "cache-gib=0.1")

    # No node is admitted before its key is registered; then it connects by itself, and a restart forgets none.
    wait_for(lambda: all("Failed to activate SuperNode" in federation.log(node) for node in NODES))
    assert "SuperNode ID" not in federation.log("node-1") + federation.log("node-2")
    federation.operator("register.sh")
    wait_for(lambda: all("SuperNode ID" in federation.log(node) for node in NODES))
    federation.stop("superlink")
    federation.start("superlink", "superlink/start.sh")
    wait_for(lambda: federation.status("/health", federation.port))
    wait_for(lambda: federation.operator("flwr.sh", "supernode", "list").count("online") == 2)

    config = pairs(**SETTINGS, data_dir=tmp_path / "site of node-1", output_dir=tmp_path, run_name="run")
    output = federation.operator("flwr.sh", "run", ".", "sites", "--stream", "-c", config)
    assert "Finished: metrics.jsonl" in output, output + federation.log("superlink")
    assert "Traceback" not in output
    assert len(rounds_of(tmp_path / "run")) == 1

    federation.operator("unregister.sh", "node-2")
    assert federation.wait("node-2") == 0


@pytest.mark.skipif(not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), reason="nginx is not installed")
def test_the_gateway_lets_nodes_through_and_nothing_else(federation: Federation, tmp_path: Path) -> None:
    inner = federation.port + 1
    federation.start("superlink", "superlink/start.sh", "--host", "127.0.0.1", "--port", str(inner))
    federation.start("gateway", "superlink/gateway.sh")
    wait_for(lambda: federation.status("/health", inner))
    wait_for(lambda: federation.status("/", federation.port))
    assert federation.status("/health", inner) == 405  # it exists, but accepts only GET
    for path in (
        "/health", "/docs", "/v1/control/list-nodes", "/v1/runtime/pull-task", "//v1/control/list-nodes",
        "/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/activate-node/../../control/list-nodes",
    ):  # fmt: skip
        assert federation.status(path, federation.port) == 403, path
    assert "403 Forbidden" in federation.operator("flwr.sh", "supernode", "list", code=1)

    federation.operator("register.sh", "node-1", SUPERLINK=f"127.0.0.1:{inner}")
    federation.start("node-1", "node-1/start.sh", tmp_path)
    wait_for(lambda: "SuperNode ID" in federation.log("node-1"))
