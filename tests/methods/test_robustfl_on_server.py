"""The server half of robustfl: how it merges centroids whoever sends them, and whole runs, killed and resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from learning.server_half import ServerHalf
from messages import keys
from methods import build_method
from methods.centroids import CENTROIDS, KNOWN, LARGEST_FEATURE, GlobalCentroids, shortened
from methods.robustfl import RobustFL
from server_app.strategy import check_privacy
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

GLOBAL = np.eye(2, dtype=np.float32)
ONE = np.array([[1, 1], [0, 2]], dtype=np.float32)
OTHER = np.array([[2, 0], [1, 1]], dtype=np.float32)


def _half() -> ServerHalf:
    return build_method(RunConfig(method="robustfl")).on_server()


def _sent(centroids: Any, known: list[float]) -> dict[str, np.ndarray]:
    return {CENTROIDS: np.array(centroids, np.float32), KNOWN: np.array(known, np.float32)}


# Merging.


def test_similar_centroids_count_more_by_hand() -> None:
    """s = 1/sqrt(2) and 1 for the first class, 1 and 1/sqrt(2) for the second."""
    half = _half()
    half.heard_arrays(1, {0: _sent(GLOBAL, [1, 1])})
    half.heard_arrays(2, {0: _sent(ONE, [1, 1]), 3: _sent(OTHER, [1, 1])})
    told = half.tell_arrays(7)
    np.testing.assert_allclose(told[CENTROIDS], [[1.585786, 0.414214], [0.414214, 1.585786]], atol=1e-5)
    assert told[KNOWN].tolist() == [1, 1]
    assert {value.dtype for value in told.values()} == {np.dtype(np.float32)}


def test_the_first_round_is_a_plain_mean_over_those_that_have_the_class() -> None:
    half = _half()
    assert half.tell_arrays(0) == half.state() == {}
    half.heard_arrays(1, {0: _sent([[1, 1], [0, 0]], [1, 0]), 3: _sent(OTHER, [1, 1])})
    np.testing.assert_allclose(half.tell_arrays(0)[CENTROIDS], [[1.5, 0.5], [1.0, 1.0]])


def test_a_class_that_nobody_holds_is_not_known() -> None:
    half = _half()
    half.heard_arrays(1, {0: _sent([[1, 1], [0, 0]], [1, 0])})
    assert half.tell_arrays(0)[KNOWN].tolist() == [1, 0]
    half.heard_arrays(2, {1: _sent([[0, 0], [3, 4]], [0, 1])})
    np.testing.assert_array_equal(half.tell_arrays(0)[CENTROIDS], [[1, 1], [3, 4]])
    assert half.tell_arrays(0)[KNOWN].tolist() == [1, 1]


def test_centroids_are_cut_down_to_twice_the_median_length_by_hand() -> None:
    """Lengths 5, 10 and 500 of the first class, with the global one of 5 the lower median 5, without it 10."""
    found = np.array([[[3, 4], [1, 0]], [[6, 8], [0, 0]], [[300, 400], [0, 1e6]]], np.float32)
    held = np.array([[True, True], [True, False], [True, True]])
    before = np.array([[5, 0], [9, 9]], np.float32)
    new = shortened(before, np.array([True, False]), found, held)
    np.testing.assert_allclose(new[:, 0], [[3, 4], [6, 8], [6, 8]])
    # Two hold the second class, of lengths 1 and a million; the lower one counts.
    np.testing.assert_allclose(new[:, 1], [[1, 0], [0, 0], [0, 2]])
    new = shortened(before, np.array([False, False]), found, held)
    np.testing.assert_allclose(new[:, 0], [[3, 4], [6, 8], [12, 16]])


def test_centroids_without_length_are_no_median() -> None:
    found = np.array([[[0, 0]], [[0, 0]], [[3, 4]]], np.float32)
    new = shortened(np.zeros((1, 2), np.float32), np.array([True]), found, np.ones((3, 1), bool))
    np.testing.assert_array_equal(new, found)


def test_a_client_among_five_cannot_make_a_centroid_long() -> None:
    """Whatever it sends, and for as long as it likes."""
    rng = np.random.default_rng(1)
    for direction in (1, -1):
        half = _half()
        for server_round in range(1, 30):
            honest = {k: _sent(3 + rng.normal(0, 0.3, (4, 8)), [1] * 4) for k in range(4)}
            liar = _sent(direction * LARGEST_FEATURE * np.ones((4, 8)), [1] * 4)
            half.heard_arrays(server_round, {**honest, 4: liar})
            centroids = half.tell_arrays(0)[CENTROIDS]
            assert (centroids > 0.3).all()  # the honest ones are about 3
            assert (centroids < 6).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_merging_is_finite_and_sendable_whatever_clients_send(seed: int, clients: int) -> None:
    rng = np.random.default_rng(seed)
    rules = RobustFL().sends({}, 4, 5)
    half = _half()
    for server_round in (1, 2, 3):
        scales = rng.choice([0, 1e-38, 1e-6, 1, LARGEST_FEATURE], size=(clients, 4, 1))
        found = np.clip(rng.normal(size=(clients, 4, 5)), -1, 1) * scales
        flags = (rng.random((clients, 4)) < 0.6).astype(float).tolist()
        sent = {k: _sent(found[k], flags[k]) for k in range(clients)}
        assert all(rules[name].problem(value) is None for one in sent.values() for name, value in one.items())
        half.heard_arrays(server_round, sent)
        told = half.tell_arrays(0)
        assert all(rules[name].problem(value) is None for name, value in told.items())


def test_the_order_of_replies_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    sent = {k: _sent(rng.normal(size=(2, 3)), [1, 1]) for k in range(7)}
    states = []
    for order in (sent, dict(reversed(sent.items()))):
        half = _half()
        half.heard_arrays(1, order)
        half.heard_arrays(2, order)
        states.append(half.state()[CENTROIDS].tobytes())
    assert states[0] == states[1]


def test_a_resumed_server_knows_the_same_centroids() -> None:
    half, other = _half(), _half()
    half.heard_arrays(1, {2: _sent(ONE, [1, 0]), 5: _sent(OTHER, [1, 0])})
    other.load_state(half.state())
    for one in (half, other):
        one.heard_arrays(2, {7: _sent(OTHER + 1, [1, 1])})
    states = [{name: value.tobytes() for name, value in one.state().items()} for one in (half, other)]
    assert states[0] == states[1]
    other.load_state({})
    assert other.tell_arrays(0) == {}


def test_what_others_keep_in_the_same_state_is_left_alone() -> None:
    centroids = GlobalCentroids()
    centroids.load_state({"began": np.array([3])})
    assert centroids.told() == centroids.state() == {}


def test_what_it_expects_of_clients() -> None:
    rules = RobustFL().sends({}, 2, 2)
    assert rules[CENTROIDS].problem(ONE) is None
    assert "each must be a number from -1000000 to 1000000" in str(rules[CENTROIDS].problem(ONE * 1e7))
    assert "each must be a whole number from 0 to 1" in str(rules[KNOWN].problem(np.array([0, 0.5], np.float32)))


@pytest.mark.parametrize("privacy", ["server-fixed", "client-adaptive"])
def test_privacy_is_refused_since_centroids_carry_no_noise(privacy: str) -> None:
    config = RunConfig(method="robustfl", privacy=privacy, privacy_args="noise-multiplier=1")
    method = build_method(config)
    with pytest.raises(ConfigError, match="clients send arrays without noise beside their weights; 'privacy' must be"):
        check_privacy(config, method, method.on_server())


# Whole runs. Of six rounds, the first two learn from given labels alone; tau is whole from the third on.

ARGS = "pseudo-start-rounds=2 warm-up-rounds=3"
TINY: dict[str, Any] = {
    "method": "robustfl", "method_args": ARGS, "model": "cnn", "image_size": 16, "num_server_rounds": 6,
    "fraction_train": 0.5, "val_split": "none",
}  # fmt: skip
PER_ROUND = 2  # clients of four


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{**TINY, **changes})


@pytest.fixture(scope="module")
def undisturbed(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return outcome_of(_run(tmp_path_factory.mktemp("undisturbed"), tiny_sample))


def test_all_clients_exchange_centroids_from_the_second_round_on(tmp_path: Path, tiny_sample: Path) -> None:
    seen: list[tuple[int, bool, bool]] = []

    def handler(message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == "train":
            server_round = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
            seen.append((server_round, keys.METHOD_ARRAYS in message.content, keys.METHOD_ARRAYS in reply.content))
        return reply

    run_dir = _run(tmp_path, tiny_sample, handler=handler, num_server_rounds=3)
    assert sorted(seen) == [(1, False, True)] * PER_ROUND + [(t, True, True) for t in (2, 3) for _ in range(PER_ROUND)]
    lines = rounds_of(run_dir)
    assert all(line["failed-partitions"] == [] for line in lines)
    assert all(0 <= line["suspects-recall"] <= 1 for line in lines)


@pytest.mark.parametrize(
    "message",
    [
        2,  # in round 1
        2 * PER_ROUND + 1,  # the first in which predictions count, and the last of the warm-up
        2 * PER_ROUND + 2,
        3 * PER_ROUND + 1,  # the first after the warm-up
        5 * PER_ROUND + 2,  # the last of all
    ],
)
def test_a_run_that_is_cut_off_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, undisturbed: Any, message: int
) -> None:
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, handler=cut_off_in(message), resume="auto")
    assert len(rounds_of(tmp_path / "run")) == (message - 1) // PER_ROUND
    assert outcome_of(_run(tmp_path, tiny_sample, resume="auto")) == undisturbed


@pytest.mark.parametrize("sign", [1, -1])
def test_a_client_that_makes_up_centroids_ends_nobodys_training(tmp_path: Path, tiny_sample: Path, sign: int) -> None:
    """They are the longest that pass, from the first round on."""

    def handler(message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        if message.metadata.message_type == "train" and context.node_config[keys.PARTITION_ID] == 0:
            sent = reply.content.array_records[keys.METHOD_ARRAYS]
            sent[CENTROIDS] = Array(np.full(sent[CENTROIDS].shape, sign * LARGEST_FEATURE, np.float32))
            sent[KNOWN] = Array(np.ones(sent[KNOWN].shape, np.float32))
        return reply

    args = f"{ARGS} centre=10 distance='sum'"  # ten times as much as the paper
    run_dir = _run(tmp_path, tiny_sample, handler=handler, fraction_train=1.0, method_args=args)
    lines = rounds_of(run_dir)
    assert [line["failed-partitions"] for line in lines] == [[]] * 6
    assert all(line["train-loss"] < 1e4 for line in lines)


@pytest.mark.parametrize(
    "settings_",
    [
        {"payload": "bf16", "strategy": "fedprox", "strategy_args": "proximal-mu=0.1"},
        {"strategy": "rfa", "trainable": "head", "augmentation": "none"},  # on kept features
        {"strategy": "krum", "trainable": "lora", "model": "resnet18", "num_server_rounds": 1},
        {"batchnorm": "local", "model": "resnet18", "precision": "fp32", "image_size": 32, "clients": 2},
    ],
    ids=["fedprox bf16", "rfa head", "krum lora", "own BatchNorm"],
)
def test_other_settings(tmp_path: Path, tiny_sample: Path, settings_: dict[str, Any]) -> None:
    changes = {"num_server_rounds": 2, "method_args": "pseudo-start-rounds=1", "fraction_train": 1.0, **settings_}
    lines = rounds_of(_run(tmp_path, tiny_sample, **changes))
    assert all(line["failed-partitions"] == [] for line in lines)
    assert all(np.isfinite(line["test-loss"]) for line in lines)
