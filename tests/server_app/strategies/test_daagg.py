"""Distance-aware aggregation: numbers worked out by hand, its two distances, and properties of its weights."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from server_app.privacy.private_strategy import takes_one_mean
from server_app.strategies.collecting import BLOCK, HeldReplies
from server_app.strategies.daagg import DaAgg
from server_app.strategies.fedavg import StreamingFedAvg
from server_app.strategy import build_strategy
from tests.fakes import InProcessGrid, one_round, partitions, record, train_reply

ROWS = [[0.0, 0.0], [1.0, 0.0], [3.0, 4.0], [1.0, 1.0]]
EXAMPLES = [100, 100, 100, 200]
NOISY = [0, 0, 1, 1]
ALPHA = [0.252071, 0.252071, 0.092732, 0.403127]


def _reply(arrays: Any, examples: int = 1, noisy: Any = None) -> Message:
    reply = train_reply(arrays, examples)
    if noisy is not None:
        reply.content.metric_records["metrics"]["noisy"] = noisy
    return reply


def _aggregate(strategy: Any, rows: Any, examples: Any, noisy: Any) -> np.ndarray:
    replies = [_reply({"w": np.array(row)}, *rest) for row, *rest in zip(rows, examples, noisy, strict=True)]
    return one_round(strategy, {"w": np.array(rows[0])}, replies)["w"]


def _weights(strategy: DaAgg, models: Any, examples: Any, noisy: Any) -> np.ndarray:
    metrics = [_reply({}, 1, one).content.metric_records["metrics"] for one in noisy]
    return strategy.weights(HeldReplies([record(model) for model in models], examples, metrics))


@pytest.mark.parametrize("distance", ["tensors", "model"])
def test_worked_numbers(distance: str) -> None:
    """d = [0, 0, sqrt(20), 1]: one tensor, so that both distances are the same."""
    strategy = DaAgg(distance=distance)
    alpha = _weights(strategy, [{"w": np.array(row)} for row in ROWS], EXAMPLES, NOISY)
    assert alpha == pytest.approx(ALPHA, abs=1e-6)
    assert _aggregate(strategy, ROWS, EXAMPLES, NOISY) == pytest.approx([0.933393, 0.774053], abs=1e-6)


def test_the_two_distances_by_hand() -> None:
    """From the clean model, the noisy ones are 3 + 4 and 6 + 0 away by tensors, but 5 and 6 as one vector.

    So each distance picks a different one as the farthest. A running variance counts by tensors only, a counter never.
    """
    clean = {
        "a.weight": np.zeros((2, 2)),
        "b.weight": np.zeros(BLOCK + 1),
        "bn.running_var": np.ones(2),
        "bn.num_batches_tracked": np.array(1),
    }
    far_apart = clean | {"a.weight": np.array([[3.0, 0], [0, 0]]), "b.weight": np.eye(1, BLOCK + 1, BLOCK)[0] * 4}
    in_one = clean | {"a.weight": np.array([[0, 6.0], [0, 0]]), "bn.num_batches_tracked": np.array(1000)}
    models, noisy = [far_apart, clean, in_one], [1, 0, 1]
    for distance, d in {"tensors": [1, 0, 6 / 7], "model": [5 / 6, 0, 1]}.items():
        expected = np.exp(-np.array(d))
        weights = _weights(DaAgg(distance=distance), models, [7] * 3, noisy)
        assert weights == pytest.approx(expected / expected.sum()), distance
    in_one["bn.running_var"] = np.array([1.0, 9.0])  # 6 + 8 by tensors
    for distance, d in {"tensors": [0.5, 0, 1], "model": [5 / 6, 0, 1]}.items():
        expected = np.exp(-np.array(d))
        weights = _weights(DaAgg(distance=distance), models, [7] * 3, noisy)
        assert weights == pytest.approx(expected / expected.sum()), distance


@pytest.mark.parametrize(
    ("rows", "noisy"),
    [(ROWS, [None] * 4), (ROWS, [0] * 4), (ROWS, [1] * 4), ([[1.0, 2.0]] * 4, NOISY), ([*ROWS[:2], *ROWS[:2]], NOISY)],
    ids=["not-reported", "all-clean", "all-noisy", "all-equal", "each-noisy-one-equals-a-clean-one"],
)
def test_it_is_fedavg_if_nothing_distinguishes_clients(rows: Any, noisy: Any) -> None:
    assert _aggregate(DaAgg(), rows, EXAMPLES, noisy) == pytest.approx(
        _aggregate(StreamingFedAvg(), rows, EXAMPLES, noisy), rel=1e-12
    )


def test_a_single_noisy_client_weighs_1_over_e_however_close() -> None:
    for off in (1e-3, 1e3):
        weights = _weights(DaAgg(), [{"w": np.zeros(3)}, {"w": np.full(3, off)}], [1, 1], [0, 1])
        assert weights[1] / weights[0] == pytest.approx(np.exp(-1))


_rows = hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.floats(-1e3, 1e3, width=32))


@given(_rows, st.data(), st.sampled_from(["tensors", "model"]))
def test_weights_are_a_mean_that_does_not_depend_on_order(rows: Any, data: Any, distance: str) -> None:
    """Weights are positive with sum 1; relative to clean clients, noisy ones keep a factor between 1/e and 1."""
    count = len(rows)
    examples = np.array(data.draw(st.lists(st.integers(1, 9999), min_size=count, max_size=count)), dtype=float)
    noisy = np.array(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    models = [{"a": row[:2], "b": row[2:]} for row in rows]
    weights = _weights(DaAgg(distance=distance), models, examples, noisy.tolist())
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1)
    factors = weights / examples
    factors /= factors.max()
    assert (factors >= np.exp(-1) * (1 - 1e-9)).all()
    if noisy.all() or not noisy.any():
        assert factors == pytest.approx(np.ones(count))
    else:
        assert factors[noisy == 0] == pytest.approx(1)
    order = np.array(data.draw(st.permutations(range(count))))
    shuffled = _weights(DaAgg(distance=distance), [models[i] for i in order], examples[order], noisy[order].tolist())
    assert shuffled == pytest.approx(weights[order])


@pytest.mark.parametrize("replies", [3, 12])
@pytest.mark.parametrize("noisy", [1, 2])
def test_memory_stays_below_the_estimate_when_distances_are_taken(replies: int, noisy: int) -> None:
    arrays = {f"layer{i}.weight": np.ones((64, 1024), np.float32) for i in range(8)}
    strategy = DaAgg()
    strategy.configure_train(1, record(arrays), ConfigRecord(), InProcessGrid(client_app, partitions(2)))
    tracemalloc.start()
    try:
        strategy.aggregate_train(
            1, (_reply({key: value + i for key, value in arrays.items()}, 1, int(i < noisy)) for i in range(replies))
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= strategy.peak_bytes(sum(value.nbytes for value in arrays.values()), replies)


def test_bad_flags_and_parameters_are_refused() -> None:
    for bad in (2, 0.5, [1, 0]):
        with pytest.raises(ValueError, match=r"noisy is .*; daagg needs 0 or 1 from every client"):
            _aggregate(DaAgg(), ROWS, EXAMPLES, [0, 0, 1, bad])
    assert _aggregate(DaAgg(), ROWS, EXAMPLES, [0.0, 0.0, 1.0, 1.0])[0] == pytest.approx(0.933393, abs=1e-6)
    with pytest.raises(ConfigError, match="daagg refuses it: distance must be one of tensors, model"):
        build_strategy(RunConfig(strategy="daagg", strategy_args="distance='cosine'"))
    chosen = build_strategy(RunConfig(strategy="daagg", strategy_args="distance='model'"))
    assert isinstance(chosen, DaAgg)
    assert chosen.distance == "model"
    assert not takes_one_mean(DaAgg)
