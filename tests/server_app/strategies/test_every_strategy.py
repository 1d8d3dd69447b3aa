"""What every strategy in the table must do: BatchNorm, state, equal replies, memory, whole runs."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import ConfigRecord, Message

from client_app.app import app as client_app
from config.run_config import RunConfig
from server_app.strategies import STRATEGIES, Sized, Stateful
from server_app.strategies.batchnorm import is_counter, is_parameter
from server_app.strategy import build_strategy
from tests.batchnorm_models import moved, network, state_of
from tests.fakes import InProcessGrid, one_round, partitions, record, rounds_of, run_in_process, train_reply

# Parameters that give each rule an effect.
ARGS = {
    "fedavgm": "server-momentum=0.9",
    "fedprox": "proximal-mu=0.1",
    "qfedavg": "q=1.0",
    "multikrum": "num-nodes-to-select=2",
}
NAMES = sorted(STRATEGIES)
WITH_STATE = {"fedavgm", "fedadagrad", "fedadam", "fedyogi"}


def _build(name: str) -> Any:
    return build_strategy(RunConfig(strategy=name, strategy_args=ARGS.get(name, "")))


@pytest.mark.parametrize("name", NAMES)
def test_ten_rounds_with_batchnorm_stay_finite_and_statistics_stay_between_the_clients(name: str) -> None:
    strategy, model, rng = _build(name), network(), np.random.default_rng(3)
    arrays = state_of(model)
    for server_round in range(1, 11):
        clients = [moved(arrays, rng) for _ in range(4)]
        replies = [train_reply(client, int(rng.integers(1, 99)), float(rng.uniform(0, 3))) for client in clients]
        new = one_round(strategy, arrays, replies, server_round)
        assert new.keys() == arrays.keys()
        for key, value in new.items():
            assert value.dtype == arrays[key].dtype, key
            assert value.shape == arrays[key].shape, key
            theirs = np.stack([client[key] for client in clients])
            if is_counter(key, value.dtype):
                assert value == theirs.max()
            elif not is_parameter(key, value.dtype):
                assert (value >= theirs.min(axis=0) * (1 - 1e-6) - 1e-6 * key.endswith("mean")).all(), key
                assert (value <= theirs.max(axis=0) * (1 + 1e-6) + 1e-6 * key.endswith("mean")).all(), key
        arrays = new
    model.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    assert torch.isfinite(model.eval()(torch.randn(2, 3, 8, 8))).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("saved_after", [1, 2])
def test_a_strategy_that_loads_anothers_state_continues_like_it(name: str, saved_after: int) -> None:
    whole, first_half = _build(name), _build(name)
    second_half = first_half
    one = other = state_of(network())
    for server_round in range(1, 5):
        for strategy in (whole, second_half):
            rng = np.random.default_rng(server_round)
            arrays = one if strategy is whole else other
            replies = [train_reply(moved(arrays, rng), 5 + i, 1.0 + i) for i in range(3)]
            new = one_round(strategy, arrays, replies, server_round)
            if strategy is whole:
                one = new
            else:
                other = new
        if server_round == saved_after:
            assert isinstance(first_half, Stateful)
            saved = safetensors.numpy.save(first_half.state())
            assert bool(first_half.state()) == (name in WITH_STATE)
            second_half = _build(name)
            second_half.load_state(safetensors.numpy.load(saved))
    for key, value in one.items():
        np.testing.assert_array_equal(other[key], value, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_all_clients_return_unchanged_stays(name: str) -> None:
    arrays = state_of(network())
    new = one_round(_build(name), arrays, [train_reply(arrays, count) for count in (3, 1, 7)])
    for key, value in arrays.items():
        np.testing.assert_array_equal(new[key], value, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_replies_changes_only_rounding(name: str) -> None:
    rng, arrays = np.random.default_rng(1), state_of(network())
    clients = [(moved(arrays, rng), 1 + i, 0.5 + i) for i in range(5)]
    one = one_round(_build(name), arrays, [train_reply(*client) for client in clients])
    other = one_round(_build(name), arrays, [train_reply(*client) for client in reversed(clients)])
    for key, value in one.items():
        np.testing.assert_allclose(other[key], value, rtol=1e-5, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("replies", [3, 12])
def test_memory_stays_below_the_estimate(name: str, replies: int) -> None:
    """A strategy that streams needs no more for twelve replies than for three."""
    arrays = {f"layer{i}.weight": np.ones((64, 1024), np.float32) for i in range(8)}
    model_bytes = sum(value.nbytes for value in arrays.values())
    strategy = _build(name)

    def stream() -> Iterator[Message]:
        for i in range(replies):
            yield train_reply({key: value + i for key, value in arrays.items()}, 1 + i)

    strategy.configure_train(1, record(arrays), ConfigRecord(), InProcessGrid(client_app, partitions(2)))
    tracemalloc.start()
    try:
        strategy.aggregate_train(1, stream())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(strategy, Sized)
    assert peak <= strategy.peak_bytes(model_bytes, replies)
    if not strategy.holds_all_replies:
        assert strategy.peak_bytes(model_bytes, 3) == strategy.peak_bytes(model_bytes, 12) <= 9 * model_bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run(tmp_path: Path, tiny_sample: Path, name: str) -> None:
    run_dir = run_in_process(
        tmp_path,
        clients=3,
        data_dir=str(tiny_sample),
        train_split="clean",
        image_size=16,
        batch_size=3,
        num_server_rounds=1,
        fraction_train=1.0,
        strategy=name,
        strategy_args=ARGS.get(name, ""),
        method="fednoro" if name == "daagg" else "ce",  # it needs a method that finds noisy clients
    )
    (entry,) = rounds_of(run_dir)
    assert entry["failed-partitions"] == []
    assert np.isfinite(entry["test-loss"])
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    assert weights["bn1.num_batches_tracked"].dtype == np.int64
    assert all((value > 0).all() for key, value in weights.items() if key.endswith("running_var"))
