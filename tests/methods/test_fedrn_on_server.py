"""FedRN's server half: whom it tells what, and whole runs killed and resumed in each stage and between them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message

from client_app.app import app as client_app
from config.run_config import RunConfig
from learning.server_half import ServerHalf
from messages import keys
from methods import build_method
from methods.fedrn_on_server import EXPERTISE, LARGEST_LOGIT, PROBE, SCORES, SEED
from server_app.checkpoint_file import load_checkpoint
from task import derived_seed
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

# The worked example: seen from client 2, cosines are 1 (its own), .2, .8, .5 in the order of EXPERTISES.
EXPERTISES = {2: 0.6, 3: 0.9, 5: 0.75, 9: 0.8}
COSINES = {2: 1.0, 3: 0.2, 5: 0.8, 9: 0.5}
RUN: dict[str, Any] = {
    "method": "fedrn", "method_args": "warm-up-rounds=2 neighbours=2 weigh-by='used'", "model": "cnn",
    "image_size": 16, "num_server_rounds": 5, "clients": 4, "local_epochs": 1,
}  # fmt: skip


def _half(args: str = "warm-up-rounds=2", **values: Any) -> ServerHalf:
    config = RunConfig(method="fedrn", method_args=args, num_server_rounds=10, seed=3, **values)
    half = build_method(config).on_server()
    half.prepare(config, None)  # type: ignore[arg-type]
    return half


def _reply(expertise: float, probe: list[float]) -> dict[str, Any]:
    return {EXPERTISE: expertise, PROBE: probe}


def _heard(half: ServerHalf) -> ServerHalf:
    half.heard(1, {k: _reply(EXPERTISES[k], [COSINES[k], float(np.sqrt(1 - COSINES[k] ** 2))]) for k in (9, 2)})
    half.heard(2, {k: _reply(EXPERTISES[k], [COSINES[k], float(np.sqrt(1 - COSINES[k] ** 2))]) for k in (5, 3)})
    return half


def _begin(half: ServerHalf, server_round: int) -> ServerHalf:
    half.before_round(server_round, ArrayRecord(), lambda action, arrays: {})
    return half


def test_nobody_has_neighbours_in_the_warm_up() -> None:
    half = _heard(_half())
    for server_round in (1, 2):
        _begin(half, server_round)
        assert half.tell(2) == {SEED: derived_seed(3, "probe image")}
        assert half.tell_models(2) == {}
    _begin(half, 3)
    assert half.tell_models(2) != {}


def test_scores_and_neighbours_by_hand() -> None:
    """Scores .4, .6, .6 and .55: clients 3 and 5 are equal, and the lower number is taken."""
    half = _begin(_heard(_half()), 3)
    assert half.tell(2)[SCORES] == pytest.approx([0.4, 0.6])
    assert half.tell_models(2) == {"1": 3}
    half = _begin(_heard(_half("warm-up-rounds=2 neighbours=3")), 3)
    assert half.tell(2)[SCORES] == pytest.approx([0.4, 0.6, 0.6, 0.55])
    assert half.tell_models(2) == {"1": 3, "2": 5, "3": 9}


def test_clients_that_were_not_heard_get_nothing_and_are_nobodys_neighbours() -> None:
    half = _begin(_heard(_half("warm-up-rounds=2 neighbours=100")), 3)
    assert SCORES not in half.tell(4)
    assert half.tell_models(4) == {}
    assert set(half.tell_models(2).values()) == {3, 5, 9}
    alone = _half()
    alone.heard(1, {7: _reply(0.5, [0.0, 0.0])})
    _begin(alone, 3)
    assert alone.tell(7)[SCORES] == [1.0]
    assert alone.tell_models(7) == {}
    nobody = _begin(_half(), 3)
    assert nobody.tell(0).keys() == {SEED}
    assert nobody.state() == {}


def test_the_last_reply_counts() -> None:
    half = _begin(_heard(_half()), 3)
    half.heard(3, {9: _reply(1.0, [1.0, 0.0])})  # the most expert one, and like client 2
    assert half.tell_models(2) == {"1": 9}


def test_a_resumed_server_says_the_same() -> None:
    half, other = _heard(_half()), _half()
    other.load_state(half.state())
    for server in (half, other):
        _begin(server, 3)
    for k in range(10):
        assert half.tell(k) == other.tell(k)
        assert half.tell_models(k) == other.tell_models(k)
    fresh = _half()
    fresh.load_state({})
    assert _begin(fresh, 3).tell_models(2) == {}


def test_whatever_hostile_clients_report_scores_are_finite() -> None:
    half = _half("warm-up-rounds=0 neighbours=5")
    extremes: list[list[float]] = [
        [LARGEST_LOGIT] * 3,
        [-LARGEST_LOGIT, LARGEST_LOGIT, 0],
        [0.0] * 3,
        [5e-324, 0, 0],
        [1, 2, 3],
    ]
    half.heard(1, {k: _reply(k % 2, [float(v) for v in probe]) for k, probe in enumerate(extremes)})
    _begin(half, 2)
    for k in range(5):
        assert np.isfinite(np.array(half.tell(k)[SCORES])).all()
        assert len(half.tell_models(k)) == 4


# Whole runs.


def _run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{**RUN, **changes})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    return _run(tmp_path_factory.mktemp("undisturbed"), tiny_sample)


def test_neighbours_travel_after_the_warm_up_to_clients_that_were_heard(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path
) -> None:
    got: dict[int, list[tuple[bool, int]]] = {}

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            server_round = int(message.content["config"]["server-round"])  # type: ignore[arg-type]
            models = sum(name.startswith(keys.CLIENT_MODEL) for name in message.content.array_records)
            got.setdefault(server_round, []).append((bool(message.content["visit"][keys.LAST_ROUND]), models))
        return client_app(message, context)

    run_dir = _run(tmp_path, tiny_sample, handler=handler)
    assert outcome_of(run_dir) == outcome_of(undisturbed)
    assert all(models == 0 for server_round in (1, 2) for _, models in got[server_round])
    later = [one for server_round in (3, 4, 5) for one in got[server_round]]
    assert all((models > 0) == known for known, models in later)
    assert any(known for known, _ in later)
    lines = rounds_of(run_dir)
    assert all(line["failed-partitions"] == [] for line in lines)
    assert max(line["sent-bytes"] for line in lines[2:]) > lines[0]["sent-bytes"]
    assert load_checkpoint(run_dir / "checkpoints" / "round-00005.safetensors").method["known"].shape[1] == 15


@pytest.mark.parametrize(
    ("train_message", "finished"),
    [(3, 1), (5, 2), (6, 2), (9, 4)],
    ids=["in the warm-up", "as stage 2 begins", "in the first round of stage 2", "in stage 2"],
)
def test_a_run_that_is_killed_and_resumed_ends_like_an_undisturbed_one(
    tmp_path: Path, tiny_sample: Path, undisturbed: Path, train_message: int, finished: int
) -> None:
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, handler=cut_off_in(train_message), resume="auto")
    assert len(rounds_of(tmp_path / "run")) == finished
    assert outcome_of(_run(tmp_path, tiny_sample, resume="auto")) == outcome_of(undisturbed)


def test_half_precision_frozen_bodies_and_own_batchnorm(tmp_path: Path, tiny_sample: Path) -> None:
    several: list[dict[str, Any]] = [
        {"payload": "bf16"},
        {"trainable": "head", "augmentation": "none"},
        {"batchnorm": "local", "method_args": "warm-up-rounds=0"},
    ]
    for number, changes in enumerate(several):
        run_dir = _run(tmp_path / str(number), tiny_sample, num_server_rounds=4, fraction_train=1.0, **changes)
        assert all(line["failed-partitions"] == [] for line in rounds_of(run_dir))
