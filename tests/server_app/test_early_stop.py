"""`patience`, `target-accuracy`, `max-hours`: after which round a run ends, whatever kills it on the way."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from flwr.app import Context, Message

from client_app.app import app as client_app
from config.run_config import ConfigError
from server_app.callbacks import RoundResult
from server_app.may_differ import NOT_SEARCHED
from server_app.rounds import RoundLoop
from server_app.run_record import read_record
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

ROUNDS = 9
HITS = [3, 5, 4, 6, 6, 5, 6, 7, 2]  # of twelve validation images, by round
RULES: dict[str, tuple[dict[str, Any], int, str]] = {
    "patience": (
        {"patience": 3}, 7,
        "Stopped after round 7 of 9: no better validation accuracy for 3 rounds ('patience').",
    ),
    "patience, seldom": (
        {"patience": 1, "evaluate_every": 3}, 9, "",  # 4, 5 and, in the last round, 2 hits
    ),
    "patience of one round": (
        {"patience": 1}, 3, "Stopped after round 3 of 9: no better validation accuracy for 1 round ('patience').",
    ),
    "target": (
        {"target_accuracy": 0.5}, 4,
        "Stopped after round 4 of 9: validation accuracy reached 0.5 in round 4 ('target-accuracy').",
    ),
    "target, seldom": (
        {"target_accuracy": 0.4, "evaluate_every": 3}, 6,
        "Stopped after round 6 of 9: validation accuracy reached 0.4 in round 6 ('target-accuracy').",
    ),
    "both": (
        {"target_accuracy": 0.5, "patience": 1}, 3,
        "Stopped after round 3 of 9: no better validation accuracy for 1 round ('patience').",
    ),
}  # fmt: skip


def settings(sample: Path, **changes: Any) -> dict[str, Any]:
    return {"data_dir": str(sample), "model": "cnn", "image_size": 16, "num_server_rounds": ROUNDS, **changes}


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation finds what `HITS` says; the model is what it is."""
    evaluate = RoundLoop._evaluate

    def scripted(self: RoundLoop, sent: Any, *others: Any) -> RoundResult:
        result, hits = evaluate(self, sent, *others), HITS[sent.server_round - 1]
        if result.validation is None:
            return result
        return replace(result, validation=replace(result.validation, confusion=np.array([[hits, 12 - hits], [0, 0]])))

    monkeypatch.setattr(RoundLoop, "_evaluate", scripted)


@pytest.fixture(scope="module")
def without_rule(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run that no rule ends, one for each kind of settings."""
    runs: dict[str, Path] = {}

    def run(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in runs:
            runs[key] = run_in_process(tmp_path_factory.mktemp("whole"), **settings(tiny_sample, **changes))
        return runs[key]

    return run


@pytest.mark.parametrize("name", RULES)
def test_a_whole_run_ends_by_a_rule(
    tmp_path: Path, tiny_sample: Path, without_rule: Callable[..., Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, last, reason = RULES[name]
    logging.getLogger("flwr").propagate = True
    with caplog.at_level("INFO"):
        run_dir = run_in_process(tmp_path, **settings(tiny_sample, **config))
    record = read_record(run_dir)
    assert record is not None
    assert (record.how, record.reason) == ("finished", reason)
    assert [line.getMessage() for line in caplog.records].count(reason) == bool(reason)
    assert "Stopped after" in caplog.text or not reason
    assert "To resume:" not in caplog.text

    every = {"evaluate_every": config["evaluate_every"]} if "evaluate_every" in config else {}
    all_lines, _ = outcome_of(without_rule(**every))
    found, _ = outcome_of(run_dir)
    to_target = [line.pop("rounds-to-target", None) for line in found]
    assert found == all_lines[:last]
    assert to_target == [None] * (last - 1) + [last if "target" in reason else None]
    assert found[-1]["test-accuracy"] is not None
    with safetensors.safe_open(run_dir / "model.safetensors", "np") as file:
        assert file.metadata()["round"] == str(last)
    assert (run_dir / "checkpoints" / f"round-{last:05}.safetensors").exists()
    assert (run_dir / "accuracy.png").exists()
    assert (run_dir / "confusion.png").exists()


@pytest.mark.parametrize(("name", "cuts"), [("patience", [2, 5, 7]), ("target, seldom", [4, 6])])
def test_a_run_cut_off_in_any_round_ends_after_the_same_one(
    tmp_path: Path, tiny_sample: Path, name: str, cuts: list[int]
) -> None:
    config, _, reason = RULES[name]
    wanted = outcome_of(run_in_process(tmp_path / "undisturbed", **settings(tiny_sample, **config)))
    for cut in cuts:
        out = tmp_path / str(cut)
        with pytest.raises(CutOffError):
            run_in_process(out, handler=cut_off_in(2 * cut), **settings(tiny_sample, **config))  # in this round
        record = read_record(out / "run")
        assert record is not None
        assert (record.how, record.reason, record.ended) == ("", "", "")
        run_in_process(out, **settings(tiny_sample, **config, resume="auto"))
        assert outcome_of(out / "run") == wanted
        record = read_record(out / "run")
        assert record is not None
        assert (record.how, record.reason) == ("finished", reason)


def no_training(message: Message, context: Context) -> Message:
    """A client that nobody may ask to train."""
    assert message.metadata.message_type != "train"
    return client_app(message, context)


def contents(run_dir: Path) -> dict[str, bytes]:
    """All that a run results in, but for the model, in whose file the order of facts is random."""
    names = ["metrics.jsonl", "accuracy.png", "confusion.png"]
    paths = [*(run_dir / name for name in names), *(run_dir / "checkpoints").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", ["patience", "target", "hours"])
@pytest.mark.parametrize("how", ["path alone", "auto by name"])
def test_a_run_that_a_rule_has_ended_ends_again_at_once(tmp_path: Path, tiny_sample: Path, name: str, how: str) -> None:
    config, _, reason = RULES.get(name, ({"max_hours": 1e-6, "evaluate_every": 2}, 2, ""))
    run_dir = run_in_process(tmp_path, pictures=True, **settings(tiny_sample, **config))
    before, outcome, record = contents(run_dir), outcome_of(run_dir), read_record(run_dir)
    resumed = {"resume": str(run_dir)} if how == "path alone" else {"resume": "auto"}
    resuming = settings(tiny_sample, **config, **resumed)
    run_in_process(tmp_path, handler=no_training, pictures=True, **resuming)
    assert (contents(run_dir), outcome_of(run_dir)) == (before, outcome)
    again = read_record(run_dir)
    assert record is not None
    assert again is not None
    assert replace(again, ended="") == replace(record, ended="")
    assert (again.how, again.reason) == ("finished", record.reason)
    assert record.reason == (reason or record.reason) != ""
    assert not (run_dir / "set-aside").exists()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"patience": 1}, {"patience": 9}),
        ({"patience": 3}, {"patience": 0}),
        ({"target_accuracy": 0.4}, {"target_accuracy": 0.0}),
        ({"max_hours": 1e-6}, {"max_hours": 100.0}),
    ],
)
def test_with_larger_values_it_goes_on_as_if_there_had_been_no_rule(
    tmp_path: Path, tiny_sample: Path, without_rule: Callable[..., Path], first: dict[str, Any], then: dict[str, Any]
) -> None:
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, **first))
    assert len(rounds_of(run_dir)) < ROUNDS
    run_in_process(tmp_path, **settings(tiny_sample, **then, resume=str(run_dir)))
    found, weights = outcome_of(run_dir)
    assert ([{**line, "rounds-to-target": 0} for line in found], weights) == (
        [{**line, "rounds-to-target": 0} for line in outcome_of(without_rule())[0]],
        outcome_of(without_rule())[1],
    )
    record = read_record(run_dir)
    assert record is not None
    assert (record.how, record.reason) == ("finished", "")
    changed = json.loads((run_dir / "resumes.jsonl").read_text())["changed"]
    [key] = [name.replace("_", "-") for name in first]
    assert changed[key] == [*first.values(), *then.values()]


def test_state_of_clients_strategy_and_method_survives_a_round_that_was_sent_in_vain(
    tmp_path: Path, tiny_sample: Path
) -> None:
    """A target is reached unforeseen: the next round's clients are training when the run ends, and save their state."""
    common = settings(tiny_sample, method="elr", strategy="fedadam", fraction_train=1.0, num_server_rounds=6, clients=3)
    sent: list[int] = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            sent.append(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        return client_app(message, context)

    run_dir = run_in_process(tmp_path / "rule", handler=handler, target_accuracy=0.5, **common)
    assert max(sent) == len(rounds_of(run_dir)) == 4  # nobody waited for the clients of round 5
    # They go on all the same, as real nodes do, and leave their state of a round that never was.
    for folder in (run_dir / "state").glob("*/client-*"):
        shutil.copy(folder / "round-00004.safetensors", folder / "round-00005.safetensors")
    run_in_process(tmp_path / "rule", target_accuracy=0.6, resume=str(run_dir), **common)
    whole = run_in_process(tmp_path / "whole", **common)
    one, other = outcome_of(run_dir), outcome_of(whole)
    for line in one[0]:
        line.pop("rounds-to-target", None)
    assert one == other


@pytest.mark.parametrize(
    ("config", "in_vain"), [({"patience": 3}, 0), ({"max_hours": 1e-6}, 0), ({"target_accuracy": 0.5}, 2)]
)
def test_clients_train_in_vain_only_where_nobody_could_know(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], in_vain: int
) -> None:
    from tests.fakes import InProcessGrid

    sent: list[str] = []
    push = InProcessGrid.push_messages

    def pushed(self: InProcessGrid, messages: Any) -> Any:
        messages = list(messages)
        sent.extend(message.metadata.message_type for message in messages)
        return push(self, messages)

    monkeypatch.setattr(InProcessGrid, "push_messages", pushed)
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, **config))
    assert sent.count("train") == 2 * len(rounds_of(run_dir)) + in_vain


@pytest.mark.parametrize("name", ["patience", "target, seldom"])
def test_auto_without_a_name_takes_no_run_that_a_rule_has_ended(tmp_path: Path, tiny_sample: Path, name: str) -> None:
    config, last, _ = RULES[name]
    common = settings(tiny_sample, run_name="", **config)

    def folders() -> list[Path]:
        return sorted(path for path in tmp_path.iterdir() if path.is_dir())

    run_in_process(tmp_path, pictures=True, **common)
    [first] = folders()
    before = contents(first)
    run_in_process(tmp_path, pictures=True, **common, resume="auto")
    assert len(folders()) == 2
    assert contents(first) == before
    [second] = set(folders()) - {first}
    more: dict[str, Any] = {key: 0 for key in ("patience", "target_accuracy") if key in config}
    run_in_process(tmp_path, **{**common, **more}, resume="auto")
    assert len(folders()) == 2
    assert len(rounds_of(second)) == ROUNDS > last == len(rounds_of(first))


def test_rules_may_differ_from_the_run_that_auto_finds() -> None:
    assert {"patience", "target-accuracy", "max-hours"} <= NOT_SEARCHED


def test_a_resumed_run_without_validation_is_given_no_rule_that_needs_it(tmp_path: Path, tiny_sample: Path) -> None:
    """By its path alone, when its settings are not known before it is read."""
    common = settings(tiny_sample, val_split="none", num_server_rounds=1)
    run_dir = run_in_process(tmp_path, **common)
    with pytest.raises(ConfigError, match="'patience' is 5, but 'val-split' is none, and a run is ended by validation"):
        run_in_process(tmp_path, **{**common, "num_server_rounds": 3}, resume=str(run_dir), patience=5)
    assert len(rounds_of(run_dir)) == 1


def test_a_lower_target_that_was_reached_before_ends_a_resumed_run_at_once(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, num_server_rounds=3))
    run_in_process(tmp_path, **settings(tiny_sample, resume=str(run_dir), target_accuracy=0.4), handler=no_training)
    record = read_record(run_dir)
    assert record is not None
    assert (
        record.reason == "Stopped after round 3 of 9: validation accuracy reached 0.4 in round 2 ('target-accuracy')."
    )
    # Cut off where it was not evaluated, it goes on to the next round that is.
    seldom = settings(tiny_sample, num_server_rounds=9, evaluate_every=2)
    with pytest.raises(CutOffError):  # in round 4
        run_in_process(tmp_path / "seldom", handler=cut_off_in(7), **seldom)
    run_in_process(tmp_path / "seldom", resume="auto", target_accuracy=0.4, **seldom)
    assert [line.get("rounds-to-target") for line in rounds_of(tmp_path / "seldom" / "run")] == [None] * 3 + [2]
