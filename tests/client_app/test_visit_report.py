"""What clients report of the models of a visit: right numbers, at no cost to training, and the same after a kill."""

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from client_app import client_state
from client_app.app import app as client_app
from data.release import open_release
from data.sealed import read_sealed
from messages import keys
from tests.fakes import CutOffError, outcome_of, run_in_process

Visits = dict[int, list[dict[str, Any]]]
SEEN = (keys.LOSS_BEFORE, keys.AGREEMENT_BEFORE, keys.LOSS_AFTER, keys.AGREEMENT_AFTER)
OWN = (keys.OWN_LOSS_BEFORE, keys.OWN_ACCURACY_BEFORE, keys.OWN_LOSS_AFTER, keys.OWN_ACCURACY_AFTER)


class Listener:
    """The ClientApp, and what it has answered: by client, the metrics of each visit and of each evaluation."""

    def __init__(self, cut_off: int = 0) -> None:
        """Cut the run off after the nth visit, when that has been saved and its reply is lost."""
        self.visits: Visits = defaultdict(list)
        self.evaluations: Visits = defaultdict(list)
        self._left = cut_off

    def __call__(self, message: Message, context: Context) -> Message:
        reply: Message = client_app(message, context)
        kind = message.metadata.message_type
        if kind in ("train", "evaluate"):
            assert not reply.has_error(), reply.error.reason
            found = self.visits if kind == "train" else self.evaluations
            sent = message.content.config_records[keys.CONFIG]
            client = int(context.node_config["partition-id"])
            found[client].append({**reply.content[keys.METRICS], "round": sent[keys.SERVER_ROUND]})
            self._left -= kind == "train"
            if kind == "train" and self._left == 0:
                raise CutOffError
        return reply


def _run(out: Path, sample: Path, handler: Listener | None = None, **changes: Any) -> tuple[Path, Listener]:
    handler = handler or Listener()
    usual = {"model": "cnn", "image_size": 16, "num_server_rounds": 3, "fraction_train": 1.0, "data_dir": str(sample)}
    return run_in_process(out, handler=handler, **{**usual, **changes}), handler


def _states(run_dir: Path, client: int) -> dict[int, dict[str, np.ndarray]]:
    """By round, the arrays that a client has kept."""
    paths = sorted(run_dir.glob(f"state/*/client-{client:05}/round-*.safetensors"))
    return {int(path.stem[6:]): read_sealed(path, client_state.FORMAT)[1] for path in paths}


@pytest.fixture(scope="module")
def watched(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listener]:
    """A run that reports all that there is."""
    out = tmp_path_factory.mktemp("watched")
    return _run(out, tiny_sample, inspection="both", holdout_fraction=0.2, eval_split="own", fraction_evaluate=1.0)


def test_each_visit_reports_both_models(watched: tuple[Path, Listener]) -> None:
    for visits in watched[1].visits.values():
        assert [keys.CHANGED in one for one in visits] == [False, True, True]
        for one in visits:
            assert {*SEEN, *OWN, keys.OWN_EXAMPLES, keys.STATE_LOST} <= one.keys()
            assert (one[keys.NUM_EXAMPLES], one[keys.OWN_EXAMPLES], one[keys.STATE_LOST]) == (24, 6, 0)
            assert (one[keys.AGREEMENT_BEFORE] * 24).is_integer()
            assert (one[keys.OWN_ACCURACY_AFTER] * 6).is_integer()
            assert one[keys.LOSS_AFTER] != one[keys.LOSS_BEFORE]


def test_the_next_round_begins_with_what_this_one_is_evaluated_on(watched: tuple[Path, Listener]) -> None:
    for client, visits in watched[1].visits.items():
        for evaluated, visit in zip(watched[1].evaluations[client], visits[1:], strict=False):
            assert evaluated[keys.NUM_EXAMPLES] == visit[keys.OWN_EXAMPLES]
            assert evaluated[keys.EVAL_ACCURACY] == visit[keys.OWN_ACCURACY_BEFORE]
            assert evaluated[keys.EVAL_LOSS] == visit[keys.OWN_LOSS_BEFORE]


def test_what_is_kept_is_what_was_reported(watched: tuple[Path, Listener], tiny_sample: Path) -> None:
    run_dir, listener = watched
    known = open_release(tiny_sample).split("noisy_train")
    labels = dict(zip(known.keys.tolist(), known.labels.tolist(), strict=True))
    for client, visits in listener.visits.items():
        states = _states(run_dir, client)
        assert sorted(states) == [1, 2, 3]
        margins = np.zeros(24, np.float32)
        for number, (visit, state) in enumerate(zip(visits, states.values(), strict=True), start=1):
            names = state["keys"].view(f"S{state['keys'].shape[1]}")[:, 0].tolist()
            assert state["given"].tolist() == [labels[name] for name in names]
            assert state["inspection/visits"].tolist() == [number]
            agreed = state["inspection/margins"] - margins > 0
            assert np.mean(agreed) == pytest.approx(visit[keys.AGREEMENT_BEFORE])
            assert np.mean(state["inspection/predicted"] == state["given"]) == pytest.approx(np.mean(agreed))
            assert (state["inspection/confidence"] > 1 / 15).all()
            margins = state["inspection/margins"]
            if number > 1:
                changed = np.mean(state["inspection/predicted"] != states[number - 1]["inspection/predicted"])
                assert visit[keys.CHANGED] == pytest.approx(changed)


def test_the_file_says_where_the_images_are_and_what_their_classes_are_called(
    watched: tuple[Path, Listener], tiny_sample: Path
) -> None:
    for path in watched[0].glob("state/*/client-*/round-*.safetensors"):
        facts, arrays = read_sealed(path, client_state.FORMAT)
        assert facts["root"] == str(tiny_sample)
        assert tuple(facts["classes"]) == open_release(tiny_sample).class_names
        assert {name: str(value.dtype) for name, value in arrays.items()} == {
            "keys": "uint8", "given": "int32", "inspection/margins": "float32", "inspection/visits": "int64",
            "inspection/predicted": "int16", "inspection/confidence": "float32",
        }  # fmt: skip


PLAIN = {"method": "ce"}
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "a method that remembers and corrects": {"method": "elr", "augmentation": "crop-flip"},
    "a method that relabels": {"method": "joint-optimization", "num_server_rounds": 2},
    "two networks": {"method": "co-teaching"},
    "BatchNorm of its own": {"model": "resnet18", "image_size": 32, "batchnorm": "local"},
    "a head on kept features": {"method": "elr", "trainable": "head", "augmentation": "none"},
    "two heads": {"method": "co-teaching", "trainable": "head", "augmentation": "none"},
    "adapters": {"trainable": "lora"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_looking_changes_nothing_that_is_trained(kind: str, tmp_path: Path, tiny_sample: Path) -> None:
    changes = {"num_server_rounds": 2, **KINDS[kind], "cache_dir": str(tmp_path / "cache")}
    blind, silent = _run(tmp_path / "blind", tiny_sample, **changes)
    looked, listener = _run(tmp_path / "looked", tiny_sample, inspection="both", **changes)
    (before, weights), (after, same_weights) = outcome_of(blind), outcome_of(looked)
    assert weights == same_weights
    assert [{key: line[key] for key in before[0]} for line in after] == before
    for client, visits in listener.visits.items():
        assert [keys.CHANGED in one for one in visits] == [False, True]
        assert all(
            one.keys().isdisjoint({*SEEN, *OWN, keys.OWN_EXAMPLES, keys.CHANGED}) for one in silent.visits[client]
        )
        for one, other in zip(visits, silent.visits[client], strict=True):
            assert one[keys.EPOCH_LOSSES] == other[keys.EPOCH_LOSSES]


def test_features_in_place_of_images_make_no_difference(tmp_path: Path, tiny_sample: Path) -> None:
    """The same head is trained on images if one of them may be mirrored, and looked at without that."""
    heads: dict[str, Any] = {
        "trainable": "head",
        "inspection": "before",
        "num_server_rounds": 1,
        "cache_dir": str(tmp_path / "cache"),
    }
    found = [
        _run(tmp_path / augmentation, tiny_sample, augmentation=augmentation, **heads)[1].visits
        for augmentation in ("none", "flip")
    ]
    for client, (visit,) in found[0].items():
        assert visit[keys.LOSS_BEFORE] == pytest.approx(found[1][client][0][keys.LOSS_BEFORE], rel=1e-5)


@pytest.mark.parametrize("visit", range(2, 13, 3))
def test_a_run_cut_off_anywhere_reports_the_same(
    visit: int, watched: tuple[Path, Listener], tmp_path: Path, tiny_sample: Path
) -> None:
    settings: dict[str, Any] = {
        "inspection": "both",
        "holdout_fraction": 0.2,
        "eval_split": "own",
        "fraction_evaluate": 1.0,
    }
    first = Listener(cut_off=visit)
    with pytest.raises(CutOffError):
        _run(tmp_path, tiny_sample, first, resume="auto", **settings)
    run_dir, second = _run(tmp_path, tiny_sample, resume="auto", **settings)
    assert outcome_of(run_dir) == outcome_of(watched[0])
    for client, visits in watched[1].visits.items():
        repeated = {one["round"]: one for one in (*first.visits[client], *second.visits[client])}
        for one in visits:
            for name in {*SEEN, *OWN, keys.CHANGED} & one.keys():
                assert repeated[one["round"]][name] == one[name], name
        assert keys.CHANGED not in repeated[1]
        last, expected = _states(run_dir, client)[3], _states(watched[0], client)[3]
        assert {name: value.tobytes() for name, value in last.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }


def test_a_client_whose_state_is_gone_begins_anew(tmp_path: Path, tiny_sample: Path) -> None:
    def lose(run_dir: Path) -> None:
        shutil.rmtree(next(run_dir.glob("state/*/client-00001")))

    visits, states = _continued(lose, tmp_path, tiny_sample)
    assert [(one[keys.STATE_LOST], keys.CHANGED in one) for one in visits[1]] == [(1, False), (0, True)]
    assert [(one[keys.STATE_LOST], keys.CHANGED in one) for one in visits[2]] == [(0, True), (0, True)]
    assert [int(states[client]["inspection/visits"][0]) for client in (1, 2)] == [2, 4]


def test_a_damaged_state_is_replaced_by_the_one_before_it(tmp_path: Path, tiny_sample: Path) -> None:
    def damage(run_dir: Path) -> None:
        next(run_dir.glob("state/*/client-00001/round-00002.safetensors")).write_bytes(b"")

    visits, states = _continued(damage, tmp_path, tiny_sample)
    assert [(one[keys.STATE_LOST], keys.CHANGED in one) for one in visits[1]] == [(1, True), (0, True)]
    assert [int(states[client]["inspection/visits"][0]) for client in (1, 2)] == [3, 4]


def _continued(
    change: Callable[[Path], None], tmp_path: Path, tiny_sample: Path
) -> tuple[Visits, dict[int, dict[str, np.ndarray]]]:
    """Rounds 3 and 4, after something has happened to a client's state: what clients reported, and kept in the end."""
    run_dir, _ = _run(tmp_path, tiny_sample, num_server_rounds=2, inspection="before")
    change(run_dir)
    run_dir, listener = _run(tmp_path, tiny_sample, num_server_rounds=4, inspection="before", resume="auto")
    return listener.visits, {client: _states(run_dir, client)[4] for client in range(4)}


def test_with_none_of_it_a_client_keeps_no_state(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir, _ = _run(tmp_path, tiny_sample, num_server_rounds=1)
    assert not (run_dir / "state").exists()


def test_personalised_batchnorm_is_looked_at_as_the_client_uses_it(tmp_path: Path, tiny_sample: Path) -> None:
    """In round 2, a client's own BatchNorm has seen its images; another one has not."""
    _, local = _run(
        tmp_path, tiny_sample, model="resnet18", image_size=32, batchnorm="local", num_server_rounds=2,
        inspection="before", holdout_fraction=0.2, fraction_evaluate=1.0, eval_split="own",
    )  # fmt: skip
    for client, visits in local.visits.items():
        assert visits[1][keys.OWN_ACCURACY_BEFORE] == local.evaluations[client][0][keys.EVAL_ACCURACY]
        assert visits[1][keys.OWN_LOSS_BEFORE] == local.evaluations[client][0][keys.EVAL_LOSS]
