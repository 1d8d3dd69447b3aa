"""What is measured, and one small probe of this machine."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from config.run_config import ConfigError, RunConfig
from learning.replica import kept_replica
from learning.training import train_locally
from methods import METHODS
from probe import client, concurrent, session
from probe.concurrent import Trial
from probe.errors import NoRoomError
from probe.session import images_of_one_client, read_config
from simulation.capacity import GIB, Share
from task import Compute, build_model, networks_of

ROOT = Path(__file__).parents[1]


def test_settings_are_read_as_flower_reads_them(tmp_path: Path) -> None:
    assert read_config(["batch-size=32 model='resnet18'", "batch-size=8"]) == RunConfig(batch_size=8, model="resnet18")
    assert read_config(["preset='notebook'"]).image_size == 224
    file = tmp_path / "mine.toml"
    file.write_text("batch-size = 4\n", encoding="utf-8")
    assert read_config([str(file)]).batch_size == 4
    for texts, sentence in {
        ("batch-size 32",): r"^-c 'batch-size 32': it must be key=value pairs",
        ("batchsize=32",): "there is no key 'batchsize'",
        ("batch-size=0",): "'batch-size' is 0; it must be a whole number of at least 1",
        (str(file), "seed=2"): "cannot be combined",
        (str(tmp_path / "none.toml"),): "must be a TOML file of run-config keys",
    }.items():
        with pytest.raises(ConfigError, match=sentence):
            read_config(list(texts))


def test_images_of_a_client_come_from_its_data(tiny_sample: Path) -> None:
    assert images_of_one_client(RunConfig(data_dir=str(tiny_sample)), 3) == 40
    assert images_of_one_client(RunConfig(data_dir=str(tiny_sample), train_split="clean"), 3) == 20 // 3
    assert images_of_one_client(RunConfig(), 10) == 400


@pytest.mark.parametrize(
    ("reply", "error", "sentence"),
    [
        ({"refused": "run config: 'method' is"}, ConfigError, "run config: 'method' is"),
        ({"out of memory": "its 0.25 of a GPU"}, NoRoomError, "its 0.25 of a GPU"),
    ],
)
def test_what_a_client_says_is_passed_on(reply: dict[str, str], error: type[Exception], sentence: str) -> None:
    process: Any = SimpleNamespace(stdout=SimpleNamespace(readline=lambda: json.dumps(reply)))
    with pytest.raises(error, match=sentence):
        concurrent._hear(process)


def test_a_client_that_the_system_kills_ran_out_of_memory() -> None:
    process: Any = SimpleNamespace(stdout=SimpleNamespace(readline=lambda: ""), wait=lambda: -9)
    with pytest.raises(NoRoomError, match="a client was ended by signal 9, most likely because memory ran out"):
        concurrent._hear(process)


def test_a_process_starts_with_its_threads_and_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    def start(command: list[str], env: dict[str, str], **options: Any) -> Any:
        started.append(env)
        return SimpleNamespace(kill=lambda: None, communicate=lambda: None)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with concurrent._processes(Share(4, 0.25), 2) as processes:
        assert len(processes) == 2
    assert [(env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]) for env in started] == [("4", "3")] * 2


def test_what_processes_take_of_a_gpu_is_looked_at_while_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [80 * GIB]
    said: list[Any] = []

    @contextlib.contextmanager
    def processes(share: Share, count: int) -> Iterator[list[Any]]:
        free[0] -= count * 10 * GIB
        yield list(range(count))
        free[0] += count * 10 * GIB

    monkeypatch.setattr(concurrent, "_processes", processes)
    monkeypatch.setattr(concurrent, "_gpu_free", lambda: free[0])
    monkeypatch.setattr(concurrent, "tell", lambda process, what: said.append((process, what)))
    replies = {"images": 64, "seconds": 2.0, "idle": 5, "peak": 7}
    monkeypatch.setattr(concurrent, "_hear", lambda process: {**replies, "peak": 7 + process})
    trial = concurrent.try_clients(RunConfig(), 3, Share(2, 0.3), steps=4, images=100)
    assert trial == Trial(3, Share(2, 0.3), 96.0, 5, 9, 30 * GIB)
    assert [who for who, _ in said] == [0, 1, 2, 0, 1, 2]  # all have their job before any is started
    job = {"role": "client", "config": RunConfig().to_flat(), "steps": 4, "images": 100, "share": [2, 0.3]}
    assert [what for _, what in said] == [job] * 3 + ["go"] * 3


def test_this_machine_can_be_probed() -> None:
    """The whole command, on two steps of a tiny job; what it prints last is the line to start a run with."""
    config = "model='resnet18' image-size=32 stem='imagenet' batch-size=2 precision='fp32'"
    arguments = ["-c", config, "--steps", "2", "--clients", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "probe", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    assert "images/s together" in done.stdout
    cpus = session.look_at_hardware().cpus
    last = done.stdout.splitlines()[-1]
    gpu = " client-resources-num-gpus=1" if torch.cuda.is_available() else ""
    start = f'flwr run . --stream --federation-config "num-supernodes=5 client-resources-num-cpus={cpus}{gpu}"'
    assert last == f'{start} -c "{config}"'  # one client of five trains in a round


def test_a_bad_key_ends_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "probe", "-c", "method='magic'", "--steps", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 1
    names = ", ".join(METHODS)
    expected = f"it must be one of {names}, or your own class as 'module:Class'.\n"
    assert done.stderr == f"python -m probe: run config: 'method' is 'magic'; {expected}"


KEPT = {
    "ce": 0, "elr": 14 * 5000, "fedelc": 2 * 14 * 5000, "maskedoptim": 2 * 14 * 5000,
    "dualoptim": 2 * 14 * 5000 + 14 * 64,  # and the centroids
}  # fmt: skip


@pytest.mark.parametrize(("name", "numbers"), KEPT.items())
def test_what_a_method_keeps_of_each_image_is_there_while_memory_is_measured(name: str, numbers: int) -> None:
    config = RunConfig(model="cnn", image_size=16)
    model = build_model("cnn", 14, seed=1)
    kept = client.tables(METHODS[name](), 5000, model, config, Compute(torch.device("cpu"), torch.float32))
    assert sum(value.numel() for value in kept if value.dim() == 2) == numbers


def test_a_network_that_clients_keep_is_there_while_memory_is_measured() -> None:
    """As read from the client's file; the one that a visit works with is made by the visit itself."""
    model = build_model("cnn", 14, seed=1)
    method, compute = METHODS["elr"](weight_averaging=0.9), Compute(torch.device("cpu"), torch.float32)  # type: ignore[call-arg]
    kept = client.tables(method, 5000, model, RunConfig(model="cnn", image_size=16), compute)
    assert sum(value.nbytes for value in kept) == 4 * 14 * 5000 + sum(v.nbytes for v in model.state_dict().values())


@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_measured(method: str, trainable: str) -> None:
    """Several look at all images of a visit, of which a probe has as many as it trains on; or at features of them."""
    config = RunConfig(
        model="cnn", image_size=16, batch_size=4, method=method, precision="fp32", num_server_rounds=10,
        trainable=trainable, augmentation="none",
    )  # fmt: skip
    images, seconds = client.client_work(config, steps=5, images=200)()
    assert images >= 20
    assert seconds > 0
    kept_replica.cache_clear()


def test_a_head_is_measured_on_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many images as it trains on, which went through the body before the clock starts."""
    seen: list[tuple[int, ...]] = []

    def watching(model: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(images.shape)
        return train_locally(model, images, *args, **kwargs)

    monkeypatch.setattr(client, "train_locally", watching)
    config = RunConfig(model="cnn", image_size=16, batch_size=4, precision="fp32", trainable="head")
    for augmentation, shape in (("none", (20, 64)), ("flip", (20, 16, 16, 3))):
        images, _ = client.client_work(replace(config, augmentation=augmentation), steps=5, images=200)()
        assert images == 20
        assert seen[-1] == shape
    kept_replica.cache_clear()


def test_second_networks_are_measured() -> None:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, method="co-teaching", precision="fp32")
    kept_replica.cache_clear()
    images, _ = client.client_work(config, steps=2, images=8)()
    assert images == 8
    spec = client.network_spec(config)
    assert len(networks_of(kept_replica(spec, torch.device("cpu"), False).model)) == 2
    assert kept_replica.cache_info().misses == 1  # the one that was measured
    kept_replica.cache_clear()


def test_what_the_starting_process_held_does_not_count() -> None:
    code = "from probe.client import peak_rss; print(peak_rss())"
    start = f"import subprocess, sys; held = bytes([1]) * (1 << 30); subprocess.run([sys.executable, '-c', {code!r}])"
    done = subprocess.run([sys.executable, "-c", start], check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 1 << 30


def test_a_release_need_not_be_measured() -> None:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, normalization="release", precision="fp32")
    assert client.client_work(config, steps=1, images=4)()[0] == 4
    assert client.server_work(config)()[0] > 0
