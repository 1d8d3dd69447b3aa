"""A simulation on two Ray nodes, one of which stands in for another machine: its own home and caches, no bundle."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data.sample import draw_sample
from experiments.superlink import SCRIPTS, free_port
from tests.e2e.superlink import SuperLink, end, find_below, pairs, wait_for
from tests.fakes import outcome_of, run_in_process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "model": "resnet18", "image_size": 32, "stem": "imagenet",
    "batch_size": 8, "precision": "fp32", "num_server_rounds": 3,
    "fraction_train": 1.0, "val_split": "none",
}  # fmt: skip
FOUR_CLIENTS = "num-supernodes=4 client-resources-num-cpus=1"
SECOND = "127.0.0.2"  # all of 127.0.0.0/8 is this machine

# A mount namespace hides folders from a process; without root, it needs a user namespace, if that is permitted.
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
CAN_HIDE = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


class RayNode:
    """`ray start` with one CPU and its own home, from which `hidden` cannot be seen."""

    def __init__(self, home: Path, *arguments: str, hidden: Path | None = None) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        command = [str(SCRIPTS / "ray"), "start", "--block", "--num-cpus", "1", "--object-store-memory", "200000000"]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--disable-usage-stats", *arguments]
        if hidden and CAN_HIDE:
            hide = 'mount -t tmpfs none "$0" && exec "$@"'
            command = [*UNSHARE, "sh", "-c", hide, str(hidden), *command]
        environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        environment |= {"RAY_memory_monitor_refresh_ms": "0", "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        with (home / "ray.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._has_started)

    def _has_started(self) -> bool:
        log = (self.home / "ray.log").read_text(errors="replace")
        assert self._process.poll() is None, log
        return "Ray runtime started" in log

    def die(self) -> None:
        """Die like a machine whose plug is pulled."""
        (raylet,) = find_below(self._process.pid, "raylet/raylet ")
        os.kill(raylet, signal.SIGKILL)

    def stop(self) -> None:
        end(self._process)


class Cluster:
    """Two nodes and a SuperLink that uses them; the second node cannot see where the SuperLink unpacks apps."""

    def __init__(self, folder: Path, sockets: str) -> None:
        self._nodes: list[RayNode] = []
        address, flwr = f"127.0.0.1:{free_port()}", folder / "flwr"
        (flwr / "apps").mkdir(parents=True)
        head = ["--head", "--port", address.partition(":")[2], "--temp-dir", sockets, "--include-dashboard=false"]
        try:
            self._start(folder / "first", *head, "--ray-client-server-port", str(free_port()))
            self._start(folder / "second", "--address", address, "--node-ip-address", SECOND, hidden=flwr / "apps")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RAY_ADDRESS", address)
                patch.setenv("HOME", str(folder / "first"))
                self.superlink = SuperLink(flwr, folder)
        except BaseException:
            self.stop_nodes()
            raise

    def _start(self, home: Path, *arguments: str, hidden: Path | None = None) -> None:
        self._nodes.append(RayNode(home, *arguments, hidden=hidden))

    @property
    def second(self) -> RayNode:
        return self._nodes[1]

    def stop_nodes(self) -> None:
        for node in reversed(self._nodes):
            node.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), sockets)
        yield cluster
        cluster.superlink.stop()
        cluster.stop_nodes()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "release"
    draw_sample(out, train=240, clean_train=20, val=12, test=60, image_size=32, seed=3)
    return out


@pytest.fixture(scope="module")
def on_one_machine(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Rounds and weights of the same run in one process, without Ray."""
    return outcome_of(run_in_process(tmp_path_factory.mktemp("one"), clients=4, data_dir=str(release), **SETTINGS))


def test_two_machines_train_the_same_weights_as_one(
    cluster: Cluster, release: Path, tmp_path: Path, on_one_machine: Any
) -> None:
    config = pairs(**SETTINGS, data_dir=release, output_dir=tmp_path, run_name="run")
    outcome = cluster.superlink.run(ROOT, "--federation-config", FOUR_CLIENTS, "-c", config)
    assert outcome.status == "finished:completed", outcome.log
    machines = [line.rpartition(" ")[2] for line in outcome.log.splitlines() if " answered from " in line]
    assert len(machines) == 2
    assert f"({SECOND})" in machines
    caches = cluster.second.home / "cache" / "clothing1m-fl"
    assert any((caches / "decoded").glob("*.pixels"))  # it trained
    assert any((caches / "code").glob("*/client_app")) == CAN_HIDE  # it had to unpack what it was sent
    assert outcome_of(tmp_path / "run") == on_one_machine


def test_a_folder_that_one_machine_lacks_ends_the_run_and_names_the_machine(
    cluster: Cluster, release: Path, tmp_path: Path
) -> None:
    (cluster.second.home.parent / "first" / "only-here").symlink_to(release)
    config = pairs(**SETTINGS, data_dir="~/only-here", output_dir=tmp_path)
    outcome = cluster.superlink.run(ROOT, "--federation-config", FOUR_CLIENTS, "-c", config)
    assert outcome.status == "finished:failed"
    assert f" ({SECOND}): {cluster.second.home / 'only-here'} does not exist; it must be a folder" in outcome.log
    assert "Traceback" not in outcome.log


def test_cpus_of_a_cluster_cannot_be_set(cluster: Cluster, tmp_path: Path) -> None:
    outcome = cluster.superlink.run(ROOT, "--federation-config", f"{FOUR_CLIENTS} init-args-num-cpus=2")
    assert outcome.status == "finished:failed"
    assert "The run stopped: federation config: 'init-args-num-cpus' is 2, but the Ray cluster at" in outcome.log
    assert "Traceback" not in outcome.log


def test_a_machine_that_dies_in_a_run_changes_nothing(
    cluster: Cluster, release: Path, tmp_path: Path, on_one_machine: Any
) -> None:
    """The last test of this cluster: the machine stays dead."""
    config = pairs(**SETTINGS, data_dir=release, output_dir=tmp_path, run_name="run")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cluster.superlink.run, ROOT, "--federation-config", FOUR_CLIENTS, "-c", config)
        wait_for((tmp_path / "run" / "config.toml").exists)  # the roll call is over; round 1 is next
        cluster.second.die()
        outcome = running.result()
    assert outcome.status == "finished:completed", outcome.log
    assert "A machine of the Ray cluster is gone; actors left: 1." in outcome.log
    assert outcome_of(tmp_path / "run") == on_one_machine
