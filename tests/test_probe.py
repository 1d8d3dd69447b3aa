"""From measurements to a recommendation, and one small probe of this machine."""

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
from probe.recommendation import (
    Hardware,
    Needs,
    candidates,
    choose,
    federation,
    reason,
    share_of_each,
    shortage,
)
from probe.session import images_of_one_client, read_config, try_all
from simulation.capacity import GIB, Share, clients_at_once
from task import Compute, build_model, networks_of

ROOT = Path(__file__).parents[1]
CPU = Hardware(cpus=8, memory=16 * GIB)
GPU = Hardware(cpus=16, memory=64 * GIB, gpus=1, gpu_memory=80 * GIB)
NEEDS = Needs(server=2 * GIB, client=GIB // 2)
GPU_NEEDS = replace(NEEDS, server_gpu=4 * GIB)


def _trials(rates: dict[int, float], peak: float = 1.0, gpu: float = 0.0, hardware: Hardware = CPU) -> list[Trial]:
    """`peak` GiB of memory and `gpu` GiB of the GPU for each client."""
    return [
        Trial(count, share_of_each(count, hardware, NEEDS), rate, GIB // 2, int(peak * GIB), int(count * gpu * GIB))
        for count, rate in rates.items()
    ]


@pytest.mark.parametrize(
    ("hardware", "sampled", "counts"),
    [
        (CPU, 100, [1, 2, 4, 8]),
        (replace(CPU, cpus=6), 100, [1, 2, 4, 6]),
        (CPU, 2, [1, 2]),
        (CPU, 1, [1]),
        (replace(GPU, gpus=4), 10, [1, 2, 3]),  # ten on four GPUs
        (replace(GPU, gpus=4), 100, [1, 2, 4]),  # a CPU for each
        (replace(GPU, cpus=1, gpus=4), 100, [1]),
    ],
)
def test_what_is_tried(hardware: Hardware, sampled: int, counts: list[int]) -> None:
    assert candidates(hardware, sampled) == counts


@pytest.mark.parametrize("at_once", range(1, 33))
@pytest.mark.parametrize("server_gpu", [0, 4 * GIB, 30 * GIB])
def test_shares_have_room_for_just_so_many(at_once: int, server_gpu: int) -> None:
    hardware = replace(GPU, cpus=64, gpus=2)
    share = share_of_each(at_once, hardware, replace(NEEDS, server_gpu=server_gpu))
    assert clients_at_once([Share(64, 2)], share) == 2 * at_once
    assert share.cpus == max(1, 32 // at_once)


def test_the_servers_part_of_a_gpu_stays_free() -> None:
    assert share_of_each(4, GPU, GPU_NEEDS) == Share(4, 0.237)
    assert share_of_each(4, GPU, NEEDS) == Share(4, 0.25)
    assert share_of_each(1, GPU, GPU_NEEDS) == Share(16, 1)


def test_more_clients_are_chosen_only_if_they_gain() -> None:
    trials = _trials({1: 100, 2: 150, 4: 153, 8: 149})
    best = choose(trials, CPU, NEEDS)
    assert best.at_once == 2
    text = "2 clients at once train 1.50 times as many images a second as one alone"
    assert reason(best, trials, CPU, NEEDS, 10) == f"{text}; more are no faster."
    assert reason(best, trials[:2], CPU, NEEDS, 2) == f"{text}; no more than 2 train in a round."
    assert choose(_trials({1: 100, 2: 101, 4: 102, 8: 104}), CPU, NEEDS).at_once == 8


def test_one_client_may_be_best() -> None:
    trials = _trials({1: 100, 2: 90})
    assert choose(trials, CPU, NEEDS).at_once == 1
    assert reason(trials[0], trials, CPU, NEEDS, 10) == "One client at a time is about as fast as several."
    assert reason(trials[0], trials[:1], CPU, NEEDS, 1) == "One client at a time; no more than 1 train in a round."


def test_memory_limits_the_clients_of_a_cpu() -> None:
    trials = _trials({1: 100, 2: 150, 4: 200, 8: 250}, peak=3)
    best = choose(trials, CPU, NEEDS)
    assert best.at_once == 4  # 4 * 3.5 + 2 are the 16 GiB
    why = reason(best, trials, CPU, NEEDS, 100)
    assert why.endswith("; 8 at once and the server need 30.0 GiB, and 16.0 are available.")
    with pytest.raises(NoRoomError, match=r"^one client and the server need 16.5 GiB, and 16.0 are available; use a"):
        choose(_trials({1: 100}, peak=14), CPU, NEEDS)


def test_memory_limits_the_clients_of_a_gpu() -> None:
    trials = _trials({1: 1000, 2: 1500, 4: 2000}, gpu=18, hardware=GPU)
    assert shortage(trials[-1], GPU, GPU_NEEDS) == ""  # 4 * 18 + 4 are 95 % of 80
    trials = _trials({1: 1000, 2: 1500, 4: 2000}, gpu=18.1, hardware=GPU)
    best = choose(trials, GPU, GPU_NEEDS)
    assert best.at_once == 2
    assert reason(best, trials, GPU, GPU_NEEDS, 10) == (
        "2 clients at once train 1.50 times as many images a second as one alone; 4 at once and the server need"
        " 76.4 GiB of a GPU, and it can give 76.0."
    )
    with pytest.raises(NoRoomError, match=r"one client and the server need 79.0 GiB of a GPU, and it can give 76.0"):
        choose(_trials({1: 1000}, gpu=75, hardware=GPU), GPU, GPU_NEEDS)


def test_memory_of_the_machine_limits_the_clients_of_many_gpus() -> None:
    hardware = replace(GPU, gpus=8, cpus=64, memory=32 * GIB)
    trials = _trials({1: 1000, 2: 1500, 4: 2000}, gpu=5, hardware=hardware)
    best = choose(trials, hardware, GPU_NEEDS)
    assert best.at_once == 2  # 16 * 1.5 + 2
    assert reason(best, trials, hardware, GPU_NEEDS, 100) == (
        "2 clients at once on each GPU train 1.50 times as many images a second as one alone; 32 at once and the"
        " server need 50.0 GiB, and 32.0 are available."
    )


def test_what_is_tried_ends_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {1: 100.0, 2: 160.0, 4: 161.0, 8: 400.0}

    def measured(config: RunConfig, at_once: int, share: Share, steps: int, images: int) -> Trial:
        if rates[at_once] == 0:
            raise NoRoomError("its 0.125 of a GPU is too little.")
        return Trial(at_once, share, rates[at_once], GIB, GIB, at_once * GIB)

    monkeypatch.setattr(session, "try_clients", measured)

    def tried(hardware: Hardware) -> list[int]:
        return [trial.at_once for trial in try_all(RunConfig(), hardware, NEEDS, 1, 1, 100)]

    assert tried(GPU) == [1, 2, 4]
    assert tried(replace(CPU, memory=64 * GIB)) == [1, 2, 4, 8]  # a CPU is there to be filled
    assert tried(replace(CPU, memory=6 * GIB)) == [1, 2, 4]  # where memory has run out
    rates[2] = 0.0
    assert tried(GPU) == [1]
    rates[1] = 0.0
    with pytest.raises(NoRoomError, match=r"its 0.125 of a GPU"):
        tried(GPU)


def test_the_line_is_flowers() -> None:
    assert federation(10, Share(2, 0)) == "num-supernodes=10 client-resources-num-cpus=2"
    assert federation(100, Share(4, 0.237)) == (
        "num-supernodes=100 client-resources-num-cpus=4 client-resources-num-gpus=0.237"
    )


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
        [sys.executable, "-m", "probe", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
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
        cwd=ROOT, capture_output=True, text=True, timeout=300,
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
