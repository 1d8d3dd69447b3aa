"""Three sites on separate hosts, TLS and registered nodes: strangers are refused, crashes cost no finished round, and
the weights are those of a run in one process, bit for bit. Adapters travel; the rest is frozen, and built at each site.
"""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.cli.build import build_fab_from_disk

from data.partition.file import save_partition
from data.release import LIST_FILES, open_release, training_split
from data.sample import draw_sample
from experiments.processes import living, words_of
from tests.e2e.hosts import Hosts, kill_session
from tests.e2e.superlink import pairs, wait_for
from tests.fakes import rounds_of, run_in_process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SITES = 3
IMAGES = 48  # of each site
SETTINGS: dict[str, Any] = {
    "model": "resnet18", "image_size": 32, "stem": "imagenet",
    "batch_size": 8, "num_server_rounds": 4, "fraction_train": 1.0,
    "precision": "fp32", "trainable": "lora", "trainable_args": "rank=2", "optimizer": "adamw", "lr_schedule": "cosine",
    "learning_rate": 0.002,
}  # fmt: skip


@dataclass
class Federation:
    """The output of `python -m deploy init`, started on separate hosts."""

    folder: Path
    hosts: Hosts
    release: Path
    sites: list[Path]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start_superlink(self) -> subprocess.Popen[bytes]:
        return self.hosts.start("link", [str(self.folder / "superlink" / "start.sh")], self.log("superlink"))

    def start_node(self, number: int, folder: str | None = None) -> subprocess.Popen[bytes]:
        """The node of a site, from another node's folder if one is given."""
        name = folder or f"node-{number}"
        command = [str(self.folder / name / "start.sh"), str(self.sites[number - 1])]
        port = {"NODE_PORT": str(9700 + number + 10 * (folder is not None))}  # all may be one machine
        cache = {"XDG_CACHE_HOME": str(self.folder / f"cache-{name}"), "NODE_RETRY_SECONDS": "3"}
        return self.hosts.start(f"site-{number}", command, self.log(name), **port, **cache)

    def operator(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.hosts.run("link", [str(self.folder / "operator" / command[0]), *command[1:]], ROOT)

    def status(self) -> str:
        listed = self.operator("flwr.sh", "list", "sites", "--format", "json").stdout
        return str(re.findall(r'"status": "([^"]+)"', listed)[0])

    def count(self, name: str, what: str) -> int:
        """How often a text occurs in a log."""
        log = self.log(name)
        return log.read_text(errors="replace").count(what) if log.exists() else 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A release, and a folder for each site with a part of its training list."""
    root = tmp_path_factory.mktemp("data")
    release = root / "release"
    draw_sample(release, train=SITES * IMAGES, clean_train=10, val=10, test=40, image_size=32, seed=8)
    sites = []
    for number in range(SITES):
        sites.append(root / f"site {number + 1}")
        shutil.copytree(release, sites[-1])
        listed = release / LIST_FILES["noisy_train"]
        lines = listed.read_text(encoding="ascii").splitlines()[number::SITES]
        (sites[-1] / listed.name).write_text("\n".join(lines) + "\n", encoding="ascii")
    return release, sites


@pytest.fixture(scope="module")
def federation(data: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("federation")
    hosts = Hosts(SITES)
    try:
        for name in ("fed", "strangers"):  # the second with its own authority and keys
            _deploy("init", root / name, "--superlink-host", hosts.address, "--nodes", str(SITES), "--port", "8443")
        fed = Federation(root / "fed", hosts, *data)
        superlink = fed.start_superlink()
        wait_for(lambda: superlink.poll() is not None or fed.operator("flwr.sh", "list", "sites").returncode == 0)
        registered = fed.operator("register.sh")
        assert registered.returncode == 0, registered.stdout + registered.stderr
        for number in range(1, SITES + 1):
            fed.start_node(number)
        yield fed
    finally:
        hosts.stop()


def _deploy(*arguments: object) -> None:
    command = [sys.executable, "-m", "deploy", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def _config(data_dir: Path, out: Path, name: str, **more: object) -> str:
    return pairs(**SETTINGS, data_dir=data_dir, output_dir=out, run_name=name, **more)


def test_three_sites_train_the_weights_of_one_process_despite_strangers_and_kills(
    federation: Federation, tmp_path: Path
) -> None:
    run_dir = tmp_path / "sites"
    config = _config(federation.release, tmp_path, "sites", strategy_args="min-available-nodes=3", resume="auto")
    submitted = federation.operator("flwr.sh", "run", str(ROOT), "sites", "-c", config)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    _strangers_are_refused(federation)

    # A node is killed in mid-round, and its script restarts it.
    wait_for(lambda: federation.count("node-2", "Receiving: train message") >= 2)
    node = _supernode(federation.folder / "node-2")
    os.kill(node, signal.SIGKILL)
    wait_for(lambda: len(rounds_of(run_dir)) >= 1)  # the server may still be evaluating it
    wait_for(lambda: federation.count("node-2", "Receiving: train message") >= 3)  # retried in round 2
    assert _supernode(federation.folder / "node-2") != node

    # The SuperLink is killed in mid-round, and restarted with its database.
    wait_for(lambda: federation.count("node-2", "Receiving: train message") >= 4)
    # Round 3 is being trained then, or has been if this machine is slow to write round 2.
    wait_for((run_dir / "checkpoints" / "round-00002.safetensors").exists)
    (superlink,) = _processes_of("flower-superlink", federation.folder / "superlink" / "server.key")
    # The first run's process outlives its SuperLink, and nobody else may write in its folder meanwhile. It is halted,
    # since Flower ends it after a minute.
    owner = json.loads((run_dir / ".lock").read_text(encoding="utf-8"))["pid"]
    os.kill(owner, signal.SIGSTOP)
    os.kill(superlink, signal.SIGKILL)
    assert not any(entry["failed-partitions"] for entry in rounds_of(run_dir))
    federation.start_superlink()
    wait_for(lambda: federation.operator("flwr.sh", "list", "sites").returncode == 0)
    refused = federation.operator("flwr.sh", "run", str(ROOT), "sites", "--stream", "-c", config)
    assert f"sites is in use by process {owner} " in refused.stdout, refused.stdout + refused.stderr
    os.kill(owner, signal.SIGKILL)
    again = federation.operator("flwr.sh", "run", str(ROOT), "sites", "--stream", "-c", config)
    assert re.search(r"Resuming after round [23] of 4\.", again.stdout), again.stdout + again.stderr
    wait_for(lambda: federation.status().startswith("finished"))
    assert federation.status() == "finished:completed", again.stdout

    rounds = rounds_of(run_dir)
    assert [entry["round"] for entry in rounds] == [1, 2, 3, 4]
    assert all(entry["failed-partitions"] == [] for entry in rounds)
    assert all(entry["num-examples"] == SITES * IMAGES for entry in rounds)
    assert _weights(run_dir) == _weights(_in_one_process(federation, tmp_path))
    _no_secret_is_leaked(federation, again.stdout)


def _strangers_are_refused(federation: Federation) -> None:
    """During the run: an unregistered key, another authority, a CLI without the certificate."""
    strangers = federation.folder.parent / "strangers"
    unregistered = federation.folder / "node-unregistered"
    shutil.copytree(federation.folder / "node-1", unregistered)
    shutil.copy(strangers / "node-1" / "node.key", unregistered / "node.key")
    other_authority = federation.folder / "node-other-authority"
    shutil.copytree(federation.folder / "node-1", other_authority)
    shutil.copy(strangers / "node-1" / "ca.crt", other_authority / "ca.crt")
    knocking = {
        unregistered.name: "Failed to activate SuperNode",
        other_authority.name: "certificate verify failed",
    }
    for name, refusal in knocking.items():
        process = federation.start_node(1, name)
        wait_for(lambda name=name, refusal=refusal: federation.count(name, refusal) > 0)  # type: ignore[misc]
        assert federation.count(name, "Receiving:") == 0
        kill_session(process, signal.SIGTERM)

    home = federation.folder / "nobody"
    home.mkdir()
    for security in ("", "insecure = true\n"):
        connection = f'[superlink.sites]\naddress = "{federation.hosts.address}:8443"\n{security}'
        (home / "config.toml").write_text(connection, encoding="utf-8")
        refused = federation.hosts.run("site-1", ["flwr", "list", "sites"], ROOT, FLWR_HOME=str(home))
        assert refused.returncode != 0, refused.stdout
        assert "run-id" not in refused.stdout.lower()


def _supernode(folder: Path) -> int:
    return wait_for(lambda: next(iter(_processes_of("flower-supernode", folder / "node.key")), None))


def _processes_of(program: str, argument: Path) -> list[int]:
    """Ids of running programs with this argument, without the shells that started them."""
    found = []
    for pid, _ in living():
        words = words_of(pid)
        if str(argument) in words and any(Path(word).name == program for word in words[:3]):
            found.append(pid)
    return found


def _in_one_process(federation: Federation, out: Path) -> Path:
    """A run of three clients with the sites' images, in the order that the roll call gave the sites."""
    whole = training_split(open_release(federation.release), "noisy")
    splits = [training_split(open_release(site), "noisy") for site in federation.sites]
    parts = [
        np.flatnonzero(np.isin(whole.keys, split.keys)) for split in sorted(splits, key=lambda split: split.digest)
    ]
    save_partition(out / "sites.partition", whole.keys, parts, {})
    return run_in_process(
        out, clients=SITES, run_name="one-process", data_dir=str(federation.release), partition="file",
        partition_args=f'path="{out / "sites.partition"}"', **SETTINGS,
    )  # fmt: skip


def _weights(run_dir: Path) -> dict[str, bytes]:
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    return {name: value.tobytes() for name, value in weights.items()}


def _no_secret_is_leaked(federation: Federation, printed: str) -> None:
    """No line of a private key, and no token, in a log, in the app's bundle, or in the CLI's output."""
    secrets = {
        line
        for key in [*federation.folder.rglob("*.key"), *federation.folder.rglob("*.pem")]
        for line in key.read_text(encoding="ascii").splitlines()
        if not line.startswith("-----")
    }
    assert len(secrets) >= 2 * (SITES + 2)  # of each node, the server and the authority
    assert all(base64.b64decode(secret + "==") for secret in secrets)
    texts = {log.name: log.read_text(errors="replace") for log in federation.folder.glob("*.log")}
    assert len(texts) == 1 + SITES + 2
    texts["the CLI"] = printed
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as bundle:
        texts |= {name: bundle.read(name).decode() for name in bundle.namelist()}
    for name, text in texts.items():
        assert not any(secret in text for secret in secrets), name
        assert "PRIVATE KEY" not in text, name
        assert not re.search(r"(?i)token[\"']?\s*[=: ]\s*[\"']?[\w-]{20,}", text), name
