"""Runs that are killed, stopped, or lose an actor.

`test_secured_deployment.py` resumes a run that is alive, and `tests/server_app/test_run_lock.py` in every way.
"""

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.sample import draw_sample
from experiments.processes import command_of
from server_app.checkpoint_file import load_checkpoint
from tests.e2e.superlink import ACTOR, SuperLink, has_ended, pairs, wait_for
from tests.fakes import outcome_of, rounds_of, run_in_process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "model": "resnet18", "image_size": 16, "stem": "imagenet",
    "batch_size": 8, "precision": "fp32", "num_server_rounds": 5,
    "fraction_train": 0.5, "val_split": "none",
}  # fmt: skip
SECONDS_OF_ROUNDS = 4.0  # the five take about six, and longer on a busy machine
# With two actors: no dashboard, autoscaler or monitor of logs, and no worker that nobody asked for. Ray does not
# start without its two agents.
RAYS = {"gcs_server": 1, "raylet": 1, "ray::DashboardAgent": 1, "ray::RuntimeEnvAgent": 1, ACTOR: 2}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "release"
    draw_sample(out, train=240, clean_train=20, val=12, test=60, image_size=32, seed=3)
    return out


def _federation(actors: int) -> tuple[str, str, str]:
    cpus = f"client-resources-num-cpus=1 init-args-num-cpus={actors}"
    return "--federation-config", f"num-supernodes=6 {cpus}", "-c"


@pytest.fixture(scope="module")
def undisturbed(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """How the run ends in one process: the same bits as with any number of actors."""
    return outcome_of(run_in_process(tmp_path_factory.mktemp("one"), clients=6, data_dir=str(release), **TINY))


@pytest.mark.parametrize(("actors", "most_kills"), [(1, 1), (2, 2)])
def test_a_run_that_is_killed_at_random_moments_ends_like_an_undisturbed_one(
    superlink: SuperLink, release: Path, tmp_path: Path, undisturbed: Any, actors: int, most_kills: int
) -> None:
    """`test_methods.py` kills runs of other strategies, each once."""
    config = pairs(**TINY, data_dir=release, output_dir=tmp_path, run_name="run", resume="auto")
    instants = np.random.default_rng([actors, *b"fedavg"])
    kills = 0
    while True:
        pid = superlink.submit(ROOT, *_federation(actors), config)
        _wait_for_rounds(tmp_path / "run")
        if _ends_within(instants.uniform(0, SECONDS_OF_ROUNDS) if kills < most_kills else 900.0, pid):
            break
        os.kill(pid, signal.SIGKILL)
        kills += 1
    assert kills > 0
    assert outcome_of(tmp_path / "run") == undisturbed


def _wait_for_rounds(run_dir: Path) -> None:
    """Wait until after the roll call, which writes the config; delete that, so that the next call waits anew."""
    wait_for((run_dir / "config.toml").exists)
    (run_dir / "config.toml").unlink()


def _ends_within(seconds: float, pid: int) -> bool:
    try:
        return wait_for(lambda: has_ended(pid), seconds)
    except TimeoutError:
        return False


def test_a_killed_actor_is_replaced(superlink: SuperLink, release: Path, tmp_path: Path) -> None:
    config = pairs(
        **{**TINY, "image_size": 64, "num_server_rounds": 2, "fraction_train": 1.0, "local_epochs": 2},
        data_dir=release, output_dir=tmp_path, run_name="run",
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(superlink.run, ROOT, *_federation(2), config)
        wait_for((tmp_path / "run" / "config.toml").exists)  # the roll call is over; round 1 is next
        victim = wait_for(lambda: next(iter(_busy(superlink)), None))
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: Counter(superlink.rays_processes().values()) == RAYS)
        outcome = running.result()
    assert outcome.status == "finished:completed", outcome.log
    rounds = rounds_of(tmp_path / "run")
    assert sum(len(line["failed-partitions"]) for line in rounds) <= 1
    assert [len(line["sampled-partitions"]) for line in rounds] == [6, 6]


def _busy(superlink: SuperLink) -> list[int]:
    """Actors that train, as far as they say so."""
    actors = [pid for pid, name in superlink.rays_processes().items() if name == ACTOR]
    return [pid for pid in actors if command_of(pid) != ACTOR]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "flwr stop"])
def test_an_interrupted_run_keeps_its_rounds_and_logs_how_to_resume(
    superlink: SuperLink, release: Path, tmp_path: Path, how: str
) -> None:
    config = pairs(**{**TINY, "num_server_rounds": 1000}, data_dir=release, output_dir=tmp_path, run_name="run")
    checkpoints = tmp_path / "run" / "checkpoints"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(superlink.run, ROOT, *_federation(2), config)
        wait_for(lambda: checkpoints.is_dir() and any(checkpoints.glob("round-*.safetensors")))
        if how == "flwr stop":
            superlink.stop_run(ROOT)
        else:
            (pid,) = superlink.find("flwr-simulation")
            os.kill(pid, getattr(signal, how))
        outcome = running.result()
    assert outcome.status == ("finished:stopped" if how == "flwr stop" else "finished:failed")
    lines = [line for line in outcome.log.splitlines() if f"-c \"resume='{tmp_path / 'run'}'\"" in line]
    assert len(lines) == (1 if how == "flwr stop" else 2)  # nobody collects the log of a stopped run
    assert "If this run is cut short" in outcome.log
    assert "Traceback" not in outcome.log
    newest = max(checkpoints.glob("round-*.safetensors"))
    assert load_checkpoint(newest).server_round >= len(rounds_of(tmp_path / "run")) - 1
