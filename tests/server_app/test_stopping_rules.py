"""`patience`, `target-accuracy`, `max-hours` by themselves: on what is known of the rounds, without a run."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.run_config import RunConfig
from server_app.callbacks import RoundResult
from server_app.callbacks.progress import Progress
from server_app.early_stop import Past, past_of, why_over


def lines(rounds: Sequence[tuple[int, float | None]], seconds: float = 1.0) -> list[dict[str, Any]]:
    """Of metrics.jsonl; a round without accuracy was not evaluated."""
    return [
        {"round": number, "test-accuracy": accuracy, "seconds": seconds}
        | ({} if accuracy is None else {"val-accuracy": accuracy})
        for number, accuracy in rounds
    ]


DEFAULTS = RunConfig()


def config_of(**values: Any) -> RunConfig:
    return RunConfig.from_flat({key.replace("_", "-"): value for key, value in values.items()})


def why(past: Past, **config: Any) -> str:
    return why_over(past, config_of(**config))


@pytest.mark.parametrize(
    ("rounds", "config", "ends"),
    [
        ([(1, 0.5)], {}, ""),
        ([(1, 0.5), (2, 0.5)], {"patience": 1}, "no better validation accuracy for 1 round ("),  # as good is not better
        ([(1, 0.5), (2, 0.6)], {"patience": 1}, ""),
        ([(1, 0.5), (2, 0.4), (3, 0.45)], {"patience": 3}, ""),
        ([(1, 0.5), (2, 0.4), (3, 0.45), (4, 0.1)], {"patience": 3}, "for 3 rounds ('patience')."),
        ([(2, 0.5), (3, None), (4, 0.4), (5, None)], {"patience": 3}, ""),  # 5 is not evaluated
        ([(2, 0.5), (3, None), (4, 0.4), (5, None), (6, 0.5)], {"patience": 3}, "Stopped after round 6 of 14: no"),
        ([(14, 0.1)], {"patience": 1, "target_accuracy": 0.1}, ""),  # the last round needs no reason
        ([(1, 0.0)], {"patience": 1}, ""),
        ([(1, 0.75)], {"target_accuracy": 0.75}, "validation accuracy reached 0.75 in round 1 ('target-accuracy')."),
        ([(1, 0.7499)], {"target_accuracy": 0.75}, ""),
        ([(1, 1.0)], {"target_accuracy": 1}, "reached 1 in round 1"),
        ([(2, 0.8), (4, 0.7)], {"target_accuracy": 0.75}, "Stopped after round 4 of 14: validation accuracy reached"),
        ([(1, 0.2)] * 1, {"max_hours": 1 / 3600}, "its rounds have taken 0.000278 hours ('max-hours')."),
        ([(1, 0.2)], {"max_hours": 1.1 / 3600}, ""),
        ([(1, None), (2, None)], {"max_hours": 1 / 3600}, ""),
        ([(1, None), (2, 0.2)], {"max_hours": 2 / 3600}, "after round 2"),
    ],
)  # fmt: skip
def test_when_a_rule_ends_a_run(rounds: list[tuple[int, float | None]], config: dict[str, Any], ends: str) -> None:
    found = why(past_of(rounds[-1][0], lines(rounds), DEFAULTS), **config)
    assert bool(found) == bool(ends)
    assert ends in found


def test_without_validation_only_hours_count() -> None:
    past = past_of(1, [{"round": 1, "test-accuracy": 0.9, "seconds": 3600.0}], DEFAULTS)
    assert not why(past, patience=1, target_accuracy=0.5)
    assert "1 hours" in why(past, max_hours=1)


def test_what_is_lost_of_the_file_is_in_the_checkpoint() -> None:
    """The line of round 2, which was the best, is damaged."""
    left = lines([(1, 0.4), (3, 0.5), (4, 0.5)])
    assert not why(past_of(4, left, DEFAULTS), patience=2)
    assert "for 2 rounds" in why(past_of(4, left, DEFAULTS, best=(2, 0.6)), patience=2)
    assert past_of(4, left, DEFAULTS, best=(2, 0.6)).reached(0.55) == 2
    assert not past_of(5, left, DEFAULTS).is_evaluated  # the last line itself is lost: a later round decides


@pytest.mark.parametrize("value", [None, "0.5", True, [], float("nan"), float("inf"), -1, 1e300])
def test_odd_values_in_the_file_count_as_missing(value: Any) -> None:
    past = past_of(1, [{"round": 1, "test-accuracy": 0.5, "val-accuracy": value, "seconds": value}], DEFAULTS)
    assert past == Past(1, True, {}, 0.0)


@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=12), st.data())
def test_a_kill_anywhere_changes_nothing(scores: list[int | None], data: st.DataObject) -> None:
    """The past that a resumed run reads is the one that an undisturbed run knows."""
    rounds = [(number, None if score is None else score / 4) for number, score in enumerate(scores, 1)]
    past = Past()
    for line in lines(rounds, seconds=0.12344):
        past = past.after(line, DEFAULTS)
    known = {number: score for number, score in rounds if score is not None}
    best = max(known.items(), key=lambda pair: (pair[1], -pair[0]), default=None)
    cut = data.draw(st.integers(0, len(rounds)))
    resumed = past_of(cut, lines(rounds[:cut], seconds=0.123), DEFAULTS)
    for line in lines(rounds[cut:], seconds=0.12344):
        resumed = resumed.after(line, DEFAULTS)
    assert resumed == past == past_of(len(rounds), lines(rounds, seconds=0.123), DEFAULTS, best)
    assert past.best(DEFAULTS) == best


def result(server_round: int, ends: str = "") -> RoundResult:
    return RoundResult(
        server_round=server_round, arrays=None, test=None, validation=None, train_loss=1.0, num_examples=1,  # type: ignore[arg-type]
        seconds=600.0, slowest_client_seconds=1.0, slowest_training_seconds=1.0, evaluation_seconds=1.0, images_seen=1,
        images_per_second=1.0, sampled_partitions=[0], ends=ends,
    )  # fmt: skip


def test_the_time_left_ends_with_the_hours(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flwr").propagate = True
    progress = Progress(100, max_hours=1.0)
    with caplog.at_level("INFO"):
        for number in range(1, 8):
            progress.after_round(result(number, ends="over" if number == 7 else ""))
    left = [record.getMessage().split()[-1] for record in caplog.records][1:]
    assert left == ["50:00", "40:00", "30:00", "20:00", "10:00", "0:00", "0:00"]
    caplog.clear()
    with caplog.at_level("INFO"):
        progress = Progress(100)
        progress.after_round(result(1))
        progress.after_round(result(2, ends="over"))
    assert [record.getMessage().split()[-1] for record in caplog.records][1:] == ["16:30:00", "0:00"]
