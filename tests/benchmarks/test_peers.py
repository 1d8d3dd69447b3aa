"""The benchmark of several frameworks: all get one job, and a contender that did another is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor, nn

import task
from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments, learning
from benchmarks.peers.bare import fedavg
from benchmarks.peers.environments import Framework, available, python_of
from benchmarks.peers.job import Job, Report
from benchmarks.peers.learning import accuracy, batches, count_steps, load
from benchmarks.peers.ours import SEED, steps_of
from benchmarks.tools.memory import PeakMemory, marked
from client_app import local_data
from config.run_config import RunConfig
from task import Compute, derived_seed, to_input

CLIENTS, IMAGES, SIZE = 3, 8, 32
WEIGHTS_SEED = derived_seed(SEED, "initial weights")
RUN = peers.Run([2.0, 4.0], 10.0, 3 * 2**20, 8, 0.5, "bare 1.0", "2.0")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("peers")
    peers.draw(folder, CLIENTS, IMAGES, SIZE)
    return Job(str(folder), "resnet18", 14, WEIGHTS_SEED, CLIENTS, ((2, 0), (1, 2)), IMAGES, SIZE, batch_size=4)


@pytest.fixture
def counted(job: Job) -> Iterator[Path]:
    file = Path(job.folder) / "steps"
    file.write_bytes(b"")
    handle = count_steps(job)
    yield file
    handle.remove()


def test_a_job_survives_its_file(job: Job, tmp_path: Path) -> None:
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 5}, "multiple of 'batch-size'"),
        ({"cohorts": ((0, 1),)}, "at least 2"),
        ({"cohorts": ((0, 1, 2, 0), (0, 1, 2, 0))}, "from 1 to 'clients'"),
    ],
)
def test_jobs_that_frameworks_would_not_share_are_refused(job: Job, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(job, **change)  # type: ignore[arg-type]


def test_cohorts_hold_a_client_once() -> None:
    cohorts = peers.cohorts_of(rounds=50, sampled=4, clients=5)
    assert all(len(set(cohort)) == 4 and set(cohort) <= set(range(5)) for cohort in cohorts)
    assert len(set(cohorts)) > 1
    assert peers.cohorts_of(50, 4, 5) == cohorts


def test_everybody_trains_on_our_images_and_labels(job: Job) -> None:
    config = RunConfig(data_dir=f"{job.folder}/release", seed=SEED, image_size=SIZE, batch_size=4, cache_gib=0.0)
    for client in range(CLIENTS):
        site = local_data.Site.resolve({"partition-id": client, "num-partitions": CLIENTS}, config)
        ours = local_data.training_data(site, config)
        images, labels = load(job, f"client-{client}")
        assert labels.tolist() == ours.labels.tolist()
        pixels = torch.from_numpy(local_data.training_pixels(site, ours, config).whole())
        assert torch.equal(images, to_input(pixels, Compute(torch.device("cpu"), torch.float32), "imagenet"))
        assert images.is_contiguous()
    assert len(load(job, "test")[1]) == peers.TEST_IMAGES


def test_everybody_starts_from_our_weights(job: Job) -> None:
    state = torch.get_rng_state()
    ours = task.build_model("resnet18", 14, SEED).state_dict()
    for name, value in learning.build_model(job).state_dict().items():
        assert torch.equal(value, ours[name]), name
    assert torch.equal(torch.get_rng_state(), state)


def test_the_bare_loop_is_fedavg_bit_for_bit(job: Job, counted: Path) -> None:
    seen: list[float] = []
    images, labels = load(job, "test")
    result = fedavg(job, False, lambda model: seen.append(accuracy(model, images, labels)))
    assert counted.stat().st_size == job.steps == 2 * 2 * 2  # rounds, clients, batches

    generator = torch.Generator().manual_seed(WEIGHTS_SEED)
    model = learning.build_model(job)
    for cohort in ((2, 0), (1, 2)):
        states = [visit(job, client, model.state_dict(), generator) for client in cohort]
        for name, value in model.state_dict().items():
            first, second = (state[name] for state in states)
            value.copy_(torch.max(first, second) if first.dtype is torch.int64 else first / 2 + second / 2)
    for name, value in model.state_dict().items():
        assert torch.equal(result.state_dict()[name], value), name
    assert len(seen) == 2
    assert seen[-1] == accuracy(model, images, labels)


def visit(job: Job, client: int, start: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """SGD with momentum and weight decay, written out."""
    model = learning.build_model(job)
    model.load_state_dict(start)
    model.train()
    velocity: dict[str, Tensor] = {}
    for images, labels in batches(job, *load(job, f"client-{client}"), generator):
        loss = nn.functional.cross_entropy(model(images), labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
                decayed = gradient.add(parameter, alpha=5e-4)
                velocity[name] = velocity[name].mul(0.9).add(decayed) if name in velocity else decayed
                parameter.add_(velocity[name], alpha=-0.004)
    return model.state_dict()


def test_fast_takes_as_many_steps_and_nearly_the_same_way(job: Job, counted: Path) -> None:
    fast = fedavg(job, True, lambda model: None)
    assert counted.stat().st_size == job.steps
    assert fast.get_parameter("layer1.0.conv1.weight").is_contiguous(memory_format=torch.channels_last)
    plain, start = fedavg(job, False, lambda model: None), learning.build_model(job)
    moved = (plain.get_parameter("conv1.weight") - start.get_parameter("conv1.weight")).norm()
    apart = (plain.get_parameter("conv1.weight") - fast.get_parameter("conv1.weight")).norm()
    assert 0 < apart < moved


def test_a_server_optimiser_takes_no_step_of_the_job(job: Job, counted: Path) -> None:
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=1.0).step()
    assert counted.read_bytes() == b""
    torch.optim.SGD([weight], lr=1.0, momentum=job.momentum).step()
    assert counted.read_bytes() == b"+"


def test_a_contender_is_measured_from_outside(job: Job, tmp_path: Path) -> None:
    run = peers.measure(peers.CONTENDERS["bare"], job, sys.executable, tmp_path / "bare")
    peers.check("bare", run, job, version("torch"))
    assert len(run.rounds) == 1
    assert run.rounds[0] > 0
    assert run.peak > 50 * 2**20  # an interpreter with PyTorch
    assert run.version.startswith("torch ")


def test_a_contender_that_fails_says_why(job: Job, tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"failed after 0 of 2 rounds:(.|\n)*No module named benchmarks.peers.nobody"
    ):
        peers.measure(peers.Contender("nobody"), job, sys.executable, tmp_path / "nobody")


def test_another_job_is_refused(job: Job) -> None:
    run = dataclasses.replace(RUN, steps=job.steps)
    peers.check("bare", run, job, "2.0")
    with pytest.raises(RuntimeError, match="'pfl' took 7 SGD steps; it must be 8"):
        peers.check("pfl", dataclasses.replace(run, steps=7), job, "2.0")
    with pytest.raises(RuntimeError, match=r"torch 2.0; it must be 2.1"):
        peers.check("pfl", run, job, "2.1")


def test_rounds_and_start_up_come_from_the_ends_of_rounds(tmp_path: Path) -> None:
    report = Report("torch")
    for end, reached in ((130.0, 0.1), (132.0, 0.2), (136.0, 0.3)):
        report.round_done(reached, end)
    report.write(tmp_path / "result.json")
    run = peers.run_of(json.loads((tmp_path / "result.json").read_text()), 100.0, peak=1, steps=8)
    assert run.rounds == [2.0, 4.0]
    assert run.start_up == 30.0 - 3.0
    assert run.accuracy == 0.3


def test_a_row_is_medians_and_the_ratio_to_bare() -> None:
    slow = dataclasses.replace(RUN, rounds=[9.0, 9.0], start_up=20.0, peak=5 * 2**20, accuracy=0.7)
    cells = peers.row([slow, RUN, slow], [RUN])
    assert cells == ["bare 1.0", 9.0, "2.0 to 9.0", "3.00", 20.0, 5, 8, 70.0]
    assert len(cells) == len(peers.COLUMNS) - 1
    assert peers.row([RUN], None)[3] == ""


def test_our_steps_are_read_from_metrics() -> None:
    assert steps_of({"images-seen": 384}, batch_size=16) == 24
    with pytest.raises(ValueError, match=r"392 images went through a step, which is no multiple of 16"):
        steps_of({"images-seen": 392}, batch_size=16)


def test_unknown_contenders_are_refused_and_those_without_a_python_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(typer.BadParameter, match="no contender 'nobody'"):
        peers.chosen(["nobody"], {})
    monkeypatch.setitem(environments.FRAMEWORKS, "blazefl", Framework(python=(99, 0)))
    assert peers.chosen(None, {}) == [name for name in peers.CONTENDERS if name != "blazefl"]
    assert peers.chosen(None, {"blazefl": "python"}) == list(peers.CONTENDERS)
    assert not available("blazefl", {})
    with pytest.raises(ValueError, match=r"needs Python 99.0"):
        python_of("blazefl", Path("nowhere"), {})


def test_an_environment_shares_pytorch_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    packages = tmp_path / "packages"
    packages.mkdir()

    def run(*command: str) -> str:
        commands.append(command)
        (tmp_path / "pfl").mkdir(exist_ok=True)
        return str(packages)

    monkeypatch.setattr(environments, "_run", run)
    python = python_of("pfl", tmp_path, {})
    assert (packages / "zz-shared.pth").read_text() == f"{sysconfig.get_path('purelib')}\n"
    assert "\ntorch==" not in (tmp_path / "pfl" / "requirements.txt").read_text()
    assert commands[-1][:4] == (str(python), "-m", "pip", "install")
    before = len(commands)
    assert python_of("pfl", tmp_path, {}) == python
    assert len(commands) == before
    python_of("pfl", tmp_path, {"pfl": "/another/python"})
    assert commands[before][0] == "/another/python"
    assert "\ntorch==" in (tmp_path / "pfl" / "requirements.txt").read_text()


def test_memory_of_processes_that_left_the_tree_counts() -> None:
    mark = f"PEERS_TEST={os.getpid()}"
    held = 64 * 2**20
    daemon = f"import time; held = b'1' * {held}; time.sleep(60)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {daemon!r}], start_new_session=True)"
    with PeakMemory(partial(marked, mark)) as memory:
        subprocess.run([sys.executable, "-c", script], env={**os.environ, "PEERS_TEST": str(os.getpid())}, check=True)
        for _ in range(100):
            if memory.peak > held:
                break
            time.sleep(0.1)
        (left,) = marked(mark)
        os.kill(left, signal.SIGKILL)
    assert held < memory.peak < 4 * held


def test_what_only_starts_processes_takes_no_memory_for_pytorch() -> None:
    script = "import sys, benchmarks.peers.ours, benchmarks.peers.with_flower; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["flower", "ours"])
def test_a_contender_runs_in_a_simulation(name: str, job: Job, tmp_path: Path) -> None:
    run = peers.measure(peers.CONTENDERS[name], job, sys.executable, tmp_path / name)
    peers.check(name, run, job, version("torch"))
    assert run.start_up > 0
