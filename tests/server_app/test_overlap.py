"""Evaluation on the server while clients train the next round."""

import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from flwr.app import Context, Error, Message

from client_app.app import app as client_app
from server_app import rounds
from server_app import strategy as setup
from server_app.clean_sets import CleanSet
from server_app.exchange import Exchange
from server_app.stopping import RunStoppedError
from tests.fakes import TIMES, InProcessGrid, outcome_of, rounds_of, run_in_process


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A log of everything that happens from now on."""
    log: list[str] = []
    push, evaluate, state_of = InProcessGrid.push_messages, CleanSet.evaluate, setup.state_of

    def pushed(self: InProcessGrid, messages: Any) -> Any:
        messages = list(messages)
        kinds = {message.metadata.message_type for message in messages if isinstance(message, Message)}
        log.extend(f"sent {kind}" for kind in sorted(kinds))
        return push(self, messages)

    def evaluated(self: CleanSet, arrays: Any) -> Any:
        log.append("evaluated")
        return evaluate(self, arrays)

    def state_taken(strategy: Any) -> Any:
        log.append("state")
        return state_of(strategy)

    monkeypatch.setattr(rounds, "state_of", state_taken)
    monkeypatch.setattr(InProcessGrid, "push_messages", pushed)
    monkeypatch.setattr(CleanSet, "evaluate", evaluated)
    return log


def _run(folder: Path, sample: Path, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    run_dir = run_in_process(
        folder, data_dir=str(sample), model="cnn", num_server_rounds=3, val_split="none", strategy="fedadam", **settings
    )
    lines = [
        {key: value for key, value in line.items() if key not in TIMES and not key.startswith("eval-")}
        for line in rounds_of(run_dir)
    ]
    return lines, safetensors.numpy.load_file(run_dir / "model.safetensors")


def test_the_next_round_is_sent_before_a_round_is_evaluated_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_sample: Path
) -> None:
    """Unless clients evaluate, because a strategy may use their results to configure the next round. Its state for the
    checkpoint is taken before it configures the next messages.
    """
    log = _recorded(monkeypatch)
    one_after_the_other, weights = _run(tmp_path / "one", tiny_sample, fraction_evaluate=0.5)
    assert log == ["sent query", *(["sent train", "state", "evaluated", "sent evaluate"] * 3)]
    log.clear()
    overlapping, same_weights = _run(tmp_path / "two", tiny_sample)
    assert log == [
        "sent query", "sent train", "state", "sent train", "evaluated", "state", "sent train", "evaluated", "state",
        "evaluated",
    ]  # fmt: skip
    assert overlapping == one_after_the_other
    assert all((weights[name] == same_weights[name]).all() for name in weights)
    assert all(line["evaluation-seconds"] > 0 for line in rounds_of(tmp_path / "two" / "run"))


def test_times_add_up_although_rounds_overlap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_sample: Path
) -> None:
    """As docs/metrics.md has it; a slow server makes the overlap long."""
    evaluate = CleanSet.evaluate

    def slowly(self: CleanSet, arrays: Any) -> Any:
        time.sleep(0.4)
        return evaluate(self, arrays)

    monkeypatch.setattr(CleanSet, "evaluate", slowly)
    for name, settings, overlaps in (
        ("two", {}, [False, True, True]),
        ("one", {"fraction_evaluate": 0.5}, [False] * 3),
    ):
        _run(tmp_path / name, tiny_sample, **settings)
        lines = rounds_of(tmp_path / name / "run")
        assert [line["overlap-seconds"] >= 0.4 for line in lines] == overlaps
        for line in lines:
            parts = line["exchange-seconds"] - line["overlap-seconds"] + line["evaluation-seconds"]
            assert parts - 0.01 < line["seconds"] < parts + 120  # files and sampling, on a busy machine
            assert line["slowest-client-seconds"] < line["exchange-seconds"]
            if not line["overlap-seconds"]:
                assert line["exchange-seconds"] + line["evaluation-seconds"] < line["seconds"] + 0.01


def test_after_a_failure_the_round_is_checked_before_the_next_one_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_sample: Path
) -> None:
    """It may be the last one, because of `min-reply-fraction`."""
    log = _recorded(monkeypatch)
    calls = []

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            calls.append(1)
            if len(calls) in (1, 3):  # the first message, and its retry
                return Message(Error(1, "client: out of luck"), reply_to=message)
        return client_app(message, context)

    _run(tmp_path, tiny_sample, handler=handler)
    assert log == [
        "sent query", "sent train", "sent train", "state", "evaluated", "sent train", "state", "sent train",
        "evaluated", "state", "evaluated",
    ]  # fmt: skip


def test_a_round_is_kept_although_the_next_one_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_sample: Path
) -> None:
    """Round 3 is sent before round 2 is evaluated and written down."""
    send, tried = Exchange.send, list[int]()

    def stops(self: Exchange, server_round: int, arrays: Any) -> Any:
        tried.append(server_round)
        if server_round == 3:
            raise RunStoppedError("round 3: too few clients.")
        return send(self, server_round, arrays)

    settings: dict[str, Any] = {"data_dir": str(tiny_sample), "model": "cnn", "num_server_rounds": 4}
    with monkeypatch.context() as patched:
        patched.setattr(Exchange, "send", stops)
        with pytest.raises(RunStoppedError, match="too few clients"):
            run_in_process(tmp_path, **settings)
    assert tried == [1, 2, 3]  # and not once more: who waited for clients in vain need not wait again
    assert [line["round"] for line in rounds_of(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run" / "checkpoints" / "round-00002.safetensors").exists()
    run_in_process(tmp_path, resume="auto", **settings)
    assert outcome_of(tmp_path / "run") == outcome_of(run_in_process(tmp_path / "undisturbed", **settings))


def test_a_run_that_stopped_between_two_rounds_ends_as_if_it_had_not(tmp_path: Path, tiny_sample: Path) -> None:
    undisturbed, weights = _run(tmp_path / "one", tiny_sample)
    settings: dict[str, Any] = {
        "data_dir": str(tiny_sample), "model": "cnn", "val_split": "none", "strategy": "fedadam",
    }  # fmt: skip
    run_in_process(tmp_path / "two", num_server_rounds=2, **settings)
    resumed = run_in_process(tmp_path / "two", num_server_rounds=3, resume=str(tmp_path / "two" / "run"), **settings)
    assert [line["test-loss"] for line in rounds_of(resumed)] == [line["test-loss"] for line in undisturbed]
    found = safetensors.numpy.load_file(resumed / "model.safetensors")
    assert all((weights[name] == found[name]).all() for name in weights)
