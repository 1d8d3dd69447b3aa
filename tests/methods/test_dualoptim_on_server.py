"""The server half of dualoptim: how it merges centroids, whom it sends them to, and that it survives a resume."""

import numpy as np
import pytest
from flwr.app import ArrayRecord

from config.run_config import RunConfig
from learning.server_half import ServerHalf
from methods import build_method
from methods.centroids import CENTROIDS, KNOWN, LARGEST_FEATURE, merged
from methods.dualoptim import DualOptim
from tests.methods.test_fedelc import NOISY
from tests.methods.test_two_stages_on_server import Clients

GLOBAL = np.eye(2, dtype=np.float32)
ONE = np.array([[1, 1], [0, 2]], dtype=np.float32)
OTHER = np.array([[2, 0], [1, 1]], dtype=np.float32)
BOTH = np.ones(2, dtype=bool)


def _merged(*found: np.ndarray, held: list[list[bool]] | None = None, known: np.ndarray = BOTH) -> np.ndarray:
    return merged(GLOBAL, known, np.stack(found), np.array(held if held else [[True, True]] * len(found)))


def test_similar_centroids_count_more_by_hand() -> None:
    new = _merged(ONE, OTHER)
    np.testing.assert_allclose(new, [[1.585786, 0.414214], [0.414214, 1.585786]], atol=1e-5)
    assert new.dtype == np.float32


def test_a_class_that_is_new_to_the_server_gets_the_plain_mean() -> None:
    means: np.ndarray = (ONE + OTHER) / 2
    np.testing.assert_allclose(_merged(ONE, OTHER, known=np.array([False, False])), means)


def test_a_client_that_lacks_a_class_does_not_count_in_it() -> None:
    lacking = np.array([[1, 1], [1e6, 1e6]], dtype=np.float32)
    new = _merged(lacking, OTHER, held=[[True, False], [True, True]])
    np.testing.assert_allclose(new, [[1.585786, 0.414214], [1.0, 1.0]], atol=1e-5)


def test_a_class_that_nobody_has_stays_as_it_was() -> None:
    held = [[True, False], [True, False]]
    np.testing.assert_array_equal(_merged(ONE, OTHER, held=held)[1], GLOBAL[1])
    np.testing.assert_array_equal(_merged(ONE, OTHER, held=held, known=np.array([True, False]))[1], GLOBAL[1])


@pytest.mark.parametrize("second", [[-1.0, 0.0], [-0.98, 0.2], [0.0, 1.0]])
def test_centroids_that_point_elsewhere_get_the_plain_mean(second: list[float]) -> None:
    """Cosines that cancel or vanish: their sum as a divisor would blow the centroid up."""
    far = np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    other = np.array([second, [0.0, 1.0]], dtype=np.float32)
    new = _merged(far, other)
    np.testing.assert_allclose(new[0], (far[0] + other[0]) / 2, atol=1e-6)


def test_a_negative_cosine_counts_nothing() -> None:
    opposite = np.array([[-1, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_allclose(_merged(ONE, opposite)[0], ONE[0], atol=1e-6)


def test_merging_stays_between_the_clients_and_is_finite() -> None:
    """Whatever they send: lengths of 0, and the largest that pass."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        found = rng.normal(size=(3, 4, 5)) * rng.choice([0, 1e-6, 1, LARGEST_FEATURE], size=(3, 4, 1))
        held, known = rng.random((3, 4)) < 0.6, rng.random(4) < 0.6
        before = rng.normal(size=(4, 5)).astype(np.float32)
        new = merged(before, known, found.astype(np.float32), held)
        assert np.isfinite(new).all()
        for j in range(4):
            some = found[held[:, j], j] if held[:, j].any() else before[None, j]
            assert (new[j] <= some.max(axis=0) + 1e-6 + 1e-6 * abs(some).max()).all()
            assert (new[j] >= some.min(axis=0) - 1e-6 - 1e-6 * abs(some).max()).all()


def _half(args: str = "") -> ServerHalf:
    config = RunConfig(method="dualoptim", method_args=args, num_server_rounds=12)
    half = build_method(config).on_server()
    half.prepare(config, None)  # type: ignore[arg-type]
    return half


def _sent(centroids: np.ndarray, known: list[float]) -> dict[str, np.ndarray]:
    return {CENTROIDS: centroids, KNOWN: np.array(known, np.float32)}


def test_only_noisy_clients_hear_of_centroids_and_only_once_there_are_any() -> None:
    half = _half()
    assert half.tell_arrays(2) == {}
    half.before_round(3, ArrayRecord(), Clients())
    assert half.tell_arrays(2) == {}
    half.heard_arrays(3, {5: _sent(OTHER, [1, 1]), 2: _sent(ONE, [1, 0])})
    told = half.tell_arrays(7)
    np.testing.assert_allclose(told[CENTROIDS], np.stack([(ONE[0] + OTHER[0]) / 2, OTHER[1]]))
    assert told[KNOWN].tolist() == [1, 1]
    assert {value.dtype for value in told.values()} == {np.dtype(np.float32)}
    assert half.tell_arrays(3) == {}  # clean


def test_a_class_that_no_client_has_is_not_known() -> None:
    half = _half("clients='all-noisy'")
    half.before_round(3, ArrayRecord(), Clients())
    half.heard_arrays(3, {0: _sent(ONE * [[1], [0]], [1, 0])})
    assert half.tell_arrays(1)[KNOWN].tolist() == [1, 0]
    half.heard_arrays(4, {1: _sent(OTHER, [0, 1])})
    np.testing.assert_array_equal(half.tell_arrays(1)[CENTROIDS], [ONE[0], OTHER[1]])
    assert half.tell_arrays(1)[KNOWN].tolist() == [1, 1]


def test_the_order_of_replies_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    sent = {k: _sent(rng.normal(size=(2, 3)).astype(np.float32), [1, 1]) for k in range(7)}
    states = []
    for order in (sent, dict(reversed(sent.items()))):
        half = _half()
        half.heard_arrays(3, order)
        half.heard_arrays(4, order)
        states.append(half.state()[CENTROIDS].tobytes())
    assert states[0] == states[1]


def test_a_resumed_server_knows_the_same_centroids() -> None:
    half = _half()
    half.before_round(3, ArrayRecord(), Clients())
    half.heard_arrays(3, {2: _sent(ONE, [1, 0]), 5: _sent(OTHER, [1, 0])})
    other = _half()
    other.load_state(half.state())
    for one in (half, other):
        one.heard_arrays(4, {7: _sent(OTHER + 1, [1, 1])})
    assert {name: value.tobytes() for name, value in half.state().items()} == {
        name: value.tobytes() for name, value in other.state().items()
    }
    assert [other.tell(k) for k in range(10)] == [half.tell(k) for k in range(10)]
    fresh = _half()
    fresh.load_state({})
    assert fresh.tell_arrays(2) == {}


def test_what_it_expects_of_noisy_clients() -> None:
    rules = DualOptim().sends(NOISY, 2, 2)
    assert rules[CENTROIDS].problem(ONE) is None
    assert "each must be a number from -1000000 to 1000000" in str(rules[CENTROIDS].problem(ONE * 1e7))
    assert "has 0.5 in it; each must be a whole number from 0 to 1" in str(
        DualOptim().sends(NOISY, 3, 2)[KNOWN].problem(np.array([0, 0.5, 1], np.float32))
    )
