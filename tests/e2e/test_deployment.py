"""The same app on a real SuperLink with real SuperNodes, over loopback: no line differs from the simulation."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from data.sample import draw_sample
from tests.e2e.superlink import SuperLink, pairs, wait_for
from tests.fakes import outcome_of, rounds_of, run_in_process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
# Rounds and arguments of each: those of several stages end in the last one.
WITH_STATE: dict[str, tuple[int, str]] = {
    "dualoptim": (2, "warm-up-rounds=1"),  # it is a FedELC, and does all that does
    "fedcorr": (3, "preprocessing-rounds=1 fine-tuning-rounds=1"),  # two clients are too few to find noisy ones
    "feddiv": (2, "warm-up-rounds=1"),
    "fedrn": (2, "warm-up-rounds=1"),
}
FINDS_THE_NOISY_ONE = "dualoptim"
SETTINGS: dict[str, Any] = {
    "model": "resnet18", "image_size": 32, "stem": "imagenet",
    "batch_size": 8, "num_server_rounds": 2, "fraction_train": 1.0,
    "precision": "fp32", "strategy_args": "min-available-nodes=2",
    # The server tells clients a matrix, and trains on its own images, before round 1 and in each round.
    "method": "xiao", "method_args": "clean-epochs=1 type-epochs=1 first-stage-rounds=1",
}  # fmt: skip


def test_two_supernodes_train_the_same_weights_as_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, because convolutions run on the same number of threads on both sides: one.

    The run in one process stands for the simulation, which `test_interrupted_runs.py` shows to end with the same bits.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    release = tmp_path / "release"
    draw_sample(release, train=160, clean_train=60, val=10, test=40, image_size=32, seed=6)

    real = SuperLink(tmp_path / "real", tmp_path, simulation=False)
    try:
        for partition in range(2):
            real.start_node(f"partition-id={partition} num-partitions=2 data-dir='{release}'")
        # The server uses its own data-dir for clean test; the nodes use theirs.
        config = pairs(**SETTINGS, data_dir=release, output_dir=tmp_path, run_name="deployment")
        outcome = real.run(ROOT, "-c", config)
    finally:
        real.stop()
    assert outcome.status == "finished:completed", outcome.log
    assert "Traceback" not in outcome.log

    expected = run_in_process(tmp_path / "one-process", clients=2, data_dir=str(release), **SETTINGS)
    one, other = (rounds_of(run_dir) for run_dir in (tmp_path / "deployment", expected))
    assert [entry["confusion-matrix"] for entry in one] == [entry["confusion-matrix"] for entry in other]
    weights = safetensors.numpy.load_file(expected / "model.safetensors")
    for name, value in safetensors.numpy.load_file(tmp_path / "deployment" / "model.safetensors").items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_methods_with_two_halves_and_state_do_the_same_on_real_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noisy clients are found by querying nodes, what clients keep stays there, and centroids, a mixture and another
    client's model travel; compared with one process.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    release = tmp_path / "release"
    draw_sample(release, train=20, clean_train=400, val=10, test=40, image_size=32, seed=6)
    # The second of two clients holds only wrong labels, the first none.
    settings: dict[str, Any] = {
        "model": "cnn", "image_size": 16, "batch_size": 8, "fraction_train": 1.0,
        "precision": "fp32", "local_epochs": 5, "learning_rate": 0.05, "val_split": "none", "train_split": "clean",
        "label_noise": "symmetric", "label_noise_args": "min-rate=0.0 max-rate=0.99", "data_dir": str(release),
    }  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        method: {"method": method, "method_args": args, "num_server_rounds": rounds, "run_name": method}
        for method, (rounds, args) in WITH_STATE.items()
    }
    real = SuperLink(tmp_path / "real", tmp_path, simulation=False)
    try:
        for partition in range(2):
            folders = f"data-dir='{release}' state-dir='{tmp_path}/state-{partition}'"
            real.start_node(f"partition-id={partition} num-partitions=2 {folders}")
        for method in WITH_STATE:
            waiting = {"strategy_args": "min-available-nodes=2", "output_dir": tmp_path}
            outcome = real.run(ROOT, "-c", pairs(**settings, **waiting, **own[method]))
            assert outcome.status == "finished:completed", outcome.log
    finally:
        real.stop()
    for method in WITH_STATE:
        expected = run_in_process(tmp_path / "one-process", clients=2, **settings, **own[method])
        assert outcome_of(tmp_path / method) == outcome_of(expected)
        found = rounds_of(expected)[-1]
        assert method != FINDS_THE_NOISY_ONE or found["noisy-clients"] == found["noisy-clients-recall"] == 1.0
        assert not (tmp_path / method / "state").exists()
    without, with_another = (line["sent-bytes"] for line in rounds_of(tmp_path / "fedrn"))
    assert with_another > 1.9 * without
    for partition in range(2):
        name = f"*/client-{partition:05}/round-*.safetensors"
        kept = list((tmp_path / f"state-{partition}").glob(name))
        assert len({path.parent for path in kept}) == len(WITH_STATE)
        assert _contents(kept) == _contents((tmp_path / "one-process").glob(f"*/state/{name}"))


def _contents(files: Iterable[Path]) -> set[tuple[Any, ...]]:
    """Names and bytes of all arrays, file by file."""
    loaded = (safetensors.numpy.load_file(path) for path in files)
    return {tuple((name, arrays[name].tobytes()) for name in sorted(arrays)) for arrays in loaded}


def test_a_site_that_leaves_for_good_does_not_stop_the_others(tmp_path: Path) -> None:
    """Of three sites with folders of their own, one leaves in round 2: the rounds after it wait once, and go on."""
    sites = [tmp_path / f"site-{number}" for number in range(3)]
    for number, site in enumerate(sites):
        draw_sample(site, train=40, clean_train=4, val=4, test=20, image_size=32, seed=number)
    settings = {
        **SETTINGS,
        "method": "ce",
        "method_args": "",
        "model": "cnn",
        "num_server_rounds": 3,
        "strategy_args": "min-available-nodes=3",
    }
    config = pairs(**settings, round_timeout=300, data_dir=sites[0], output_dir=tmp_path, run_name="run")
    metrics = tmp_path / "run" / "metrics.jsonl"

    real = SuperLink(tmp_path / "real", tmp_path, simulation=False)
    try:
        for site in sites:
            real.start_node(f"data-dir='{site}'")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(real.run, ROOT, "-c", config)
            wait_for(lambda: metrics.exists() and metrics.read_text(encoding="utf-8").count("\n") == 1)
            real.stop_node(2)
            outcome = running.result()
    finally:
        real.stop()
    assert outcome.status == "finished:completed", outcome.log
    assert "Traceback" not in outcome.log
    entries = rounds_of(tmp_path / "run")
    assert [entry["round"] for entry in entries] == [1, 2, 3]
    trained = [set(entry["sampled-partitions"]) - set(entry["failed-partitions"]) for entry in entries]
    assert [len(partitions) for partitions in trained] == [3, 2, 2]
    assert len(entries[2]["sampled-partitions"]) == 2
    assert outcome.log.count("goes on without clients that are not connected: ") == 1
