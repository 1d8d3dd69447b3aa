"""Strategies that need all replies: numbers worked out by hand, Flower's own classes, and properties."""

from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server_app.stopping import RunStoppedError
from server_app.strategies.bulyan import Bulyan
from server_app.strategies.collecting import BLOCK, HeldReplies, HoldingStrategy, krum_scores
from server_app.strategies.fedmedian import FedMedian
from server_app.strategies.fedtrimmedavg import FedTrimmedAvg
from server_app.strategies.krum import Krum, MultiKrum
from server_app.strategies.rfa import RFA
from tests.fakes import one_round, record, train_reply

ROWS = [[1, 2], [2, 1], [1.5, 1.5], [1, 1], [10, -10]]
EXAMPLES = [10, 20, 30, 20, 20]


def _aggregate(strategy: HoldingStrategy, rows: Any, examples: Any = None) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    counts = [1] * len(rows) if examples is None else examples
    replies = [train_reply({"w": row}, count) for row, count in zip(rows, counts, strict=True)]
    return one_round(strategy, {"w": rows[0]}, replies)["w"]


@pytest.mark.parametrize(
    ("strategy", "result"),
    [
        (FedMedian(), [1.5, 1]),
        (FedTrimmedAvg(beta=0.2), [1.5, 1.166667]),
        (FedTrimmedAvg(beta=0.0), [3.1, -0.9]),
        (Krum(num_malicious_nodes=1), [1.5, 1.5]),
        (MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3), [1.5, 1.5]),
        (RFA(), [1.641015, 1.167071]),
        (RFA(iterations=500, tolerance=0.0), [1.532395, 1.316297]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, HoldingStrategy) else "",
)
def test_worked_numbers(strategy: HoldingStrategy, result: list[float]) -> None:
    assert _aggregate(strategy, ROWS, EXAMPLES) == pytest.approx(result, abs=1e-6)


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert _aggregate(FedMedian(), [ROWS[i] for i in (0, 1, 2, 4)]) == pytest.approx([1.75, 1.25])


def test_krums_scores() -> None:
    """f = 1, so the two nearest count; numbers of examples do not count, and a tie goes to the earlier reply."""
    distances = HeldReplies([record({"w": np.array(row, dtype=float)}) for row in ROWS], [1] * 5).squared_distances()
    assert krum_scores(distances, np.arange(5), 1) == pytest.approx([1.5, 1.5, 1, 1.5, 387])


@pytest.mark.parametrize(
    ("iterations", "result"),
    [(1, [1.930867, 0.664568]), (2, [1.725752, 1.056953]), (3, [1.664416, 1.133378]), (4, [1.603617, 1.177333])],
)
def test_weiszfelds_iterates(iterations: int, result: list[float]) -> None:
    assert _aggregate(RFA(iterations=iterations), ROWS) == pytest.approx(result, abs=1e-6)


def test_rfa_stops_when_the_objective_stops_falling() -> None:
    converged = _aggregate(RFA(iterations=500, tolerance=0.0), ROWS)
    assert converged == pytest.approx([1.50353, 1.294376], abs=1e-6)
    assert np.linalg.norm(np.array(ROWS) - converged, axis=1).sum() == pytest.approx(16.366362, abs=1e-6)
    early = _aggregate(RFA(iterations=500, tolerance=0.01), ROWS)
    assert 1e-3 < np.abs(early - converged).max() < 0.2


def test_bulyan_by_hand() -> None:
    """Seven replies, f = 1: Krum chooses 3, 4, 2, 5, 1 in turn; the three closest to their median 3 are 2, 3, 4."""
    rows = [[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [100.0]]
    assert _aggregate(Bulyan(num_malicious_nodes=1), rows) == pytest.approx([3.0])


@pytest.mark.parametrize(
    ("ours", "flowers"),
    [
        (FedMedian(), flower.FedMedian()),
        (FedTrimmedAvg(beta=0.3), flower.FedTrimmedAvg(beta=0.3)),
        (Krum(num_malicious_nodes=2), flower.Krum(num_malicious_nodes=2)),
        (
            MultiKrum(num_malicious_nodes=2, num_nodes_to_select=4),
            flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=4),
        ),
        (Bulyan(num_malicious_nodes=0), flower.Bulyan(num_malicious_nodes=0)),
        (Bulyan(num_malicious_nodes=2), flower.Bulyan(num_malicious_nodes=2)),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_equal_to_flowers_class(ours: Any, flowers: Any) -> None:
    """With equal numbers of examples; both Bulyans select the seven replies that are close together."""
    rng = np.random.default_rng(7)
    scales = [0.1] * 7 + [5.0] * 2 + [50.0] * 2
    rows = [{"a": rng.normal(scale=scale, size=(5, 3)), "b": rng.normal(size=4)} for scale in scales]
    arrays, _ = flowers.aggregate_train(1, [train_reply(row) for row in rows])
    result = one_round(ours, rows[0], [train_reply(row) for row in rows])
    for name, value in result.items():
        np.testing.assert_allclose(value, arrays[name].numpy(), rtol=1e-7, err_msg=name)


_rows = hnp.arrays(
    np.float32,
    st.tuples(st.integers(3, 9), st.integers(1, 5)),
    elements=st.floats(-1e3, 1e3, width=32),
)
_rules: Any = [
    FedMedian(),
    FedTrimmedAvg(),
    FedTrimmedAvg(beta=0.45),
    Krum(),
    MultiKrum(num_nodes_to_select=2),
    Bulyan(),
    RFA(),
]


@given(_rows, st.randoms(use_true_random=False), st.sampled_from(_rules))
def test_results_lie_between_the_replies_whatever_their_order(rows: Any, random: Any, strategy: Any) -> None:
    rows = rows.astype(np.float64)
    result = _aggregate(strategy, rows)
    slack = 1e-9 * np.abs(rows).max()
    assert (result >= rows.min(axis=0) - slack).all()
    assert (result <= rows.max(axis=0) + slack).all()
    if not isinstance(strategy, Krum):  # its ties go to the earlier reply
        order = list(range(len(rows)))
        random.shuffle(order)
        np.testing.assert_allclose(_aggregate(strategy, rows[order]), result, rtol=1e-6, atol=1e-6)


@given(_rows, st.integers(0, 3))
def test_krum_picks_a_member_with_the_smallest_score(rows: Any, malicious: int) -> None:
    if len(rows) < malicious + 3:
        with pytest.raises(RunStoppedError, match=f"Krum needs at least {malicious + 3} usable replies but got"):
            _aggregate(Krum(num_malicious_nodes=malicious), rows)
        return
    exact = rows.astype(np.float64)
    scores = []
    for i in range(len(rows)):
        others = sorted(float(((exact[i] - exact[j]) ** 2).sum()) for j in range(len(rows)) if j != i)
        scores.append(sum(others[: len(rows) - malicious - 2]))
    result = _aggregate(Krum(num_malicious_nodes=malicious), rows)
    chosen = [scores[i] for i in range(len(rows)) if (exact[i] == result).all()]
    assert chosen
    assert min(chosen) <= min(scores) * (1 + 1e-9)


@given(hnp.arrays(np.float64, st.tuples(st.just(7), st.integers(1, 3)), elements=st.integers(-50, 50)))
def test_bulyan_equals_its_definition(rows: Any) -> None:
    f, left, selected = 1, list(range(7)), []
    for _ in range(7 - 2 * f):
        scores = []
        for i in left:
            others = sorted(((rows[i] - rows[j]) ** 2).sum() for j in left if j != i)
            scores.append(sum(others[: max(1, len(left) - f - 2)]))
        selected.append(left.pop(int(np.argmin(scores))))
    expected = []
    for column in rows[selected].T:
        closest = sorted(column, key=lambda value: (abs(value - np.median(column)), value))[: 7 - 4 * f]
        expected.append(np.mean(closest))
    assert _aggregate(Bulyan(num_malicious_nodes=f), rows) == pytest.approx(expected)


def test_distances_leave_out_buffers_and_stay_exact_beside_huge_replies() -> None:
    def model(weight: float, noise: float) -> Any:
        return record(
            {
                "conv.weight": np.full((3, BLOCK), weight, np.float32),
                "bn.running_mean": np.full(4, noise, np.float32),
                "bn.running_var": np.full(4, noise, np.float32),
                "bn.num_batches_tracked": np.asarray(int(noise)),
            }
        )

    models = [model(1.0, 5.0), model(1.5, 7e6), model(1e15, 9.0), model(3.0, 1.0)]
    distances = HeldReplies(models, [1] * 4).squared_distances()
    assert distances[0, 1] == 3 * BLOCK * 0.25
    assert distances[1, 3] == 3 * BLOCK * 2.25
    np.testing.assert_array_equal(distances, distances.T)


def test_too_few_or_mismatched_replies_are_refused() -> None:
    with pytest.raises(RunStoppedError, match=r"round 1: Bulyan needs at least 7 usable replies but got 5; a larger"):
        _aggregate(Bulyan(num_malicious_nodes=1), ROWS)
    with pytest.raises(RunStoppedError, match="MultiKrum needs at least 6 usable replies but got 5"):
        _aggregate(MultiKrum(num_malicious_nodes=1, num_nodes_to_select=5), ROWS)
    with pytest.raises(ValueError, match=r"'w' has shape \(3,\); it must be \(2,\)"):
        HeldReplies([record({"w": np.zeros(2)}), record({"w": np.zeros(3)})], [1, 1])
    with pytest.raises(ValueError, match="arrays differ in 'v'"):
        HeldReplies([record({"w": np.zeros(2)}), record({"v": np.zeros(2)})], [1, 1])
    assert FedMedian().aggregate_train(1, iter([])) == (None, None)
