"""While a simulation runs, nothing on another machine reaches any of its ports, and nobody without its token Ray's."""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.sample import draw_sample
from experiments.processes import command_of, words_of
from tests.e2e.hosts import Hosts
from tests.e2e.superlink import ACTOR, flower_env, name_in_ray, pairs, wait_for

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ENDLESS = {
    "model": "cnn", "image_size": 16, "batch_size": 8, "precision": "fp32", "num_server_rounds": 100_000,
    "fraction_train": 1.0, "val_split": "none",
}  # fmt: skip
# A busy machine starts a SuperLink in more than the 15 s that `flwr` gives it.
PATIENT_FLWR = """
    from flwr.cli import app, local_superlink
    local_superlink.LOCAL_SUPERLINK_STARTUP_TIMEOUT = 300.0
    local_superlink.CONTROL_API_PROBE_TIMEOUT = 10.0
    app.app()
"""
REACHED = """
    import socket, sys
    for address in sys.argv[1:]:
        host, port = address.split()
        try:
            socket.create_connection((host, int(port)), 2).close()
        except OSError:
            continue
        print(address)
"""
STORE = """
    import sys
    from ray._raylet import GcsClient
    print("wrote", GcsClient(address=sys.argv[1]).internal_kv_put(b"key", b"value", True, b"a stranger's"))
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    hosts = Hosts(1)
    if not hosts.apart:
        pytest.skip("needs root and `ip netns`")
    yield hosts
    hosts.stop()


def test_no_port_of_a_simulation_is_open_to_other_machines(hosts: Hosts, tmp_path: Path) -> None:
    """As users start it: `flwr run` starts the local SuperLink, which starts the simulation."""
    # Ray listens where the machine's default route leads, or on the loopback if there is none.
    hosts.run("link", ["ip", "route", "add", "default", "via", f"{hosts.address}0"], tmp_path)
    draw_sample(tmp_path / "data", train=64, clean_train=20, val=12, test=20, image_size=32, seed=3)
    config = pairs(**ENDLESS, data_dir=tmp_path / "data", output_dir=tmp_path, run_name="run")
    federation = "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=2"
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(PATIENT_FLWR),
        "run",
        str(ROOT),
        "--federation-config",
        federation,
        "-c",
        config,
    ]
    begun = hosts.run("link", command, tmp_path, **flower_env(tmp_path / "flwr"))
    assert begun.returncode == 0, begun.stdout + begun.stderr
    wait_for(lambda: any((tmp_path / "run" / "checkpoints").glob("round-*")))

    # The round that started from nothing is written before Ray's actors need have started: none is overlooked.
    wait_for(lambda: _owners(hosts, tmp_path) >= {"gcs_server", "raylet", ACTOR, "flwr-simulation", "flower-superlink"})
    listening = _listening(hosts, tmp_path)
    ports = sorted({line.split()[3].rpartition(":")[2] for line in listening})

    assert _reached(hosts, "site-1", hosts.address, ports, tmp_path) == []
    assert len(_reached(hosts, "link", "127.0.0.1", ports, tmp_path)) == len(ports)

    raylet = next(pid for pid in hosts.processes("link") if "raylet/raylet " in command_of(pid))
    store = re.findall(r"--gcs-address=(\S+)", command_of(raylet))[0]
    write = [sys.executable, "-c", textwrap.dedent(STORE), store]
    stranger = hosts.run("link", write, tmp_path)  # stands for another user of the machine
    assert "InvalidAuthToken" in stranger.stderr
    environment = dict(line.split("=", 1) for line in Path(f"/proc/{raylet}/environ").read_text().split("\0") if line)
    token = {name: environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    assert "wrote 1" in hosts.run("link", write, tmp_path, **token).stdout


def _reached(hosts: Hosts, name: str, address: str, ports: list[str], cwd: Path) -> list[str]:
    """The ports of `address` that accept a connection from a host."""
    script = [sys.executable, "-c", textwrap.dedent(REACHED)]
    return hosts.run(name, [*script, *(f"{address} {port}" for port in ports)], cwd).stdout.splitlines()


def _listening(hosts: Hosts, cwd: Path) -> list[str]:
    """A line of `ss` for each socket that listens."""
    return hosts.run("link", ["ss", "-ltnpH"], cwd).stdout.splitlines()


def _owners(hosts: Hosts, cwd: Path) -> set[str]:
    """The names of all processes that listen: Ray's, and scripts that Python runs."""
    pids = {int(pid) for line in _listening(hosts, cwd) for pid in re.findall(r"pid=(\d+)", line)}
    return {name_in_ray(pid) or "".join(Path(word).name for word in words_of(pid)[1:2]) for pid in pids}
