"""FedAvg checked against NumPy, buffers and counters included."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.named import build_named
from config.run_config import ConfigError
from server_app.strategies import STRATEGIES
from server_app.strategies.fedavg import StreamingFedAvg
from server_app.strategies.running_mean import RunningMean
from task import build_model
from tests.fakes import train_reply


def test_three_resnets_with_batchnorm_equal_the_weighted_mean_in_numpy() -> None:
    states = []
    for client in range(3):
        model = build_model("resnet18", 5, seed=client)
        state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        rng = np.random.default_rng(client)
        for name, value in state.items():
            if "running" in name:
                state[name] = rng.random(value.shape, dtype=np.float32)
            if name.endswith("num_batches_tracked"):
                state[name] = np.asarray(10 * client + 7)
        states.append(state)
    counts = [100, 50, 7]
    replies = [train_reply(state, count, 1.0) for state, count in zip(states, counts, strict=True)]
    arrays, metrics = StreamingFedAvg().aggregate_train(1, iter(replies))

    assert arrays is not None
    assert metrics is not None
    for name, first in states[0].items():
        stacked = np.stack([state[name] for state in states])
        result = arrays[name].numpy()
        assert result.dtype == first.dtype, name
        assert result.shape == first.shape, name
        if name.endswith("num_batches_tracked"):
            assert result == 27
        else:
            expected = np.average(stacked.astype(np.float64), axis=0, weights=counts)
            np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-8, err_msg=name)
    build_model("resnet18", 5, seed=9).load_state_dict(arrays.to_torch_state_dict())


def test_worked_numbers() -> None:
    """Weights 1 and 3: (1 * 2 + 3 * 4) / 4 = 3.5; losses (1 * 0.8 + 3 * 0.4) / 4 = 0.5."""
    replies = [
        train_reply({"w": np.array([2.0], np.float32)}, 1, 0.8),
        train_reply({"w": np.array([4.0], np.float32)}, 3, 0.4),
    ]
    arrays, metrics = StreamingFedAvg().aggregate_train(1, replies)
    assert arrays is not None
    assert metrics is not None
    assert arrays["w"].numpy().tolist() == [3.5]
    assert metrics["train-loss"] == pytest.approx(0.5)


def test_replies_are_freed_one_by_one() -> None:
    replies = [train_reply({"w": np.zeros(4, dtype=np.float32)}, 1, 0.0) for _ in range(3)]
    held: list[int] = []

    def stream() -> Any:
        for index, reply in enumerate(replies):
            held.append(sum(len(earlier.content.array_records["arrays"]) for earlier in replies[:index]))
            yield reply

    StreamingFedAvg().aggregate_train(1, stream())
    assert held == [0, 0, 0]


def test_no_reply_gives_nothing() -> None:
    assert StreamingFedAvg().aggregate_train(1, []) == (None, None)


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.integers(1, 10**6)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_mean_lies_between_its_inputs_and_hardly_depends_on_their_order(pairs: Any, random: Any) -> None:
    def mean(items: Any) -> float:
        running = RunningMean()
        for value, weight in items:
            running.add({"w": np.array([value], np.float32)}, weight)
        return float(running.take()["w"][0])

    shuffled = list(pairs)
    random.shuffle(shuffled)
    values = [np.float32(value) for value, _ in pairs]
    assert min(values) - 1e-3 <= mean(pairs) <= max(values) + 1e-3
    assert mean(shuffled) == pytest.approx(mean(pairs), rel=1e-6, abs=1e-4)


def test_equal_models_are_their_own_mean_bit_for_bit() -> None:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0)).numpy()
    running = RunningMean()
    for weight in (8, 8, 16):
        running.add({"w": weights}, weight)
    np.testing.assert_array_equal(running.take()["w"], weights)


@pytest.mark.parametrize(
    ("arrays", "weight", "message"),
    [
        ({"w": np.zeros(3)}, 1, r"'w' has shape \(3,\); it must be \(2,\)"),
        ({"v": np.zeros(2)}, 1, "arrays differ in 'v'"),
        ({"w": np.zeros(2)}, 0, "num-examples is 0; it must be above 0"),
        ({"w": np.zeros(2)}, float("nan"), "num-examples is nan"),
    ],
)
def test_a_refused_model_changes_nothing(arrays: Any, weight: float, message: str) -> None:
    running = RunningMean()
    running.add({"w": np.ones(2)}, 2)
    with pytest.raises(ValueError, match=message):
        running.add(arrays, weight)
    np.testing.assert_array_equal(running.take()["w"], np.ones(2))
    assert running.weight == 2


def test_strategy_parameters_are_checked() -> None:
    assert build_named("strategy", STRATEGIES, "fedavg", "min-train-nodes=3").min_train_nodes == 3
    with pytest.raises(ConfigError, match="'strategy' is 'fedsgd'; it must be one of bulyan, daagg, fedadagrad"):
        build_named("strategy", STRATEGIES, "fedsgd", "")
    with pytest.raises(ConfigError, match="min-train-nodes must be a whole number of at least 1"):
        build_named("strategy", STRATEGIES, "fedavg", "min-train-nodes=0")
    with pytest.raises(ConfigError, match="names 'server-lr'; fedavg takes min-train-nodes"):
        build_named("strategy", STRATEGIES, "fedavg", "server-lr=1.0")
