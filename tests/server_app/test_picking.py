"""By which numbers the best model is picked, and which round that is, without a run."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.run_config import RunConfig
from server_app.early_stop import Past, past_of, why_over
from server_app.picking import PATIENCE, WINDOW, picked, smoothed

WAVE: dict[str, Any] = {"val_split": "label-wave", "inspection": "before", "num_server_rounds": 100}


def lines(changes: Sequence[float | None], first: int = 1) -> list[dict[str, Any]]:
    """Of metrics.jsonl, from round `first`; None: all clients were there for the first time."""
    return [
        {"round": number, "test-accuracy": None, "seconds": 1.0}
        | ({} if value is None else {"prediction-changes": value})
        for number, value in enumerate(changes, first)
    ]


def past(changes: Sequence[float | None], config: RunConfig, best: tuple[int, float] | None = None) -> Past:
    return past_of(len(changes), lines(changes), config, best)


def test_worked_numbers() -> None:
    """Round t reports how the model of round t - 1 differs from the one before; three of them make its score."""
    config = RunConfig(**WAVE, test_split="none", patience=2)
    changes = [None, 0.6, 0.3, 0.3, 0.3, 0.0, 0.6, 0.6, 0.6]
    found = past(changes, config)
    scores = {3: 0.6, 4: 0.7, 5: 0.8, 6: 0.7, 7: 0.6, 8: 0.4}  # 1 - (0.6 + 0.3 + 0.3) / 3 for the model of round 3, ...
    assert found.scores == pytest.approx(scores)
    assert found.best(config) == (5, found.scores[5])
    rounds = [past(changes[:number], config).best(config) for number in range(1, len(changes) + 1)]
    assert [one[0] if one else None for one in rounds] == [None, None, None, 3, 4, 5, 5, 5, 5]
    ends = [why_over(past(changes[:number], config), config) for number in range(1, len(changes) + 1)]
    assert ends[:7] == [""] * 7
    assert ends[7] == (
        "Stopped after round 8 of 100: predictions changed least in round 5, and not less in 2 rounds since"
        " ('patience')."
    )


def test_the_first_minimum_counts_and_not_a_later_one() -> None:
    """Once a network has memorised every label, it changes no prediction at all."""
    changes = [None, *[0.2] * 3, *[0.4] * 8, *[0.0] * 9]
    config = RunConfig(**WAVE)
    first = past(changes, config).best(config)
    assert first is not None
    assert first[0] == 3
    patient = RunConfig(**WAVE, patience=20)
    best = past(changes, patient).best(patient)
    assert best is not None
    assert best[0] == changes.index(0.0) + WINDOW - 1  # the first with three zeros, a round earlier than its line


@pytest.mark.parametrize(
    ("scores", "final", "best"),
    [
        ({}, math.inf, None),
        ({1: 0.5}, 1, 1),
        ({1: 0.5, 2: 0.5}, math.inf, 1),  # as good is not better
        ({1: 0.5, 2: 0.4, 3: 0.6}, math.inf, 3),
        ({1: 0.5, 2: 0.4, 3: 0.6}, 2, 3),  # one round without
        ({1: 0.5, 2: 0.4, 3: 0.4, 4: 0.6}, 2, 1),
        ({1: 0.5, 2: 0.6, 3: 0.4, 4: 0.4, 5: 0.9}, 2, 2),
        ({1: 0.5, 9: 0.6}, 2, 9),  # nobody has seen the rounds between
        ({1: 0.5, 7: 0.4, 9: 0.6}, 2, 9),  # nor here, but one
        ({1: 0.5, 7: 0.4, 9: 0.4, 10: 0.6}, 2, 1),
        ({9: 0.6, 1: 0.5}, math.inf, 9),
    ],
)
def test_the_best_score(scores: dict[int, float], final: float, best: int | None) -> None:
    assert picked(scores, final) == best


SHARES = st.lists(st.one_of(st.none(), st.integers(0, 8).map(lambda eighths: eighths / 8)), min_size=1, max_size=30)


@given(SHARES, st.integers(0, 4), st.integers(1, 3), st.data())
def test_a_kill_anywhere_changes_nothing(
    changes: list[float | None], patience: int, every: int, data: st.DataObject
) -> None:
    """What is read of the lines and of the checkpoint after any round leads to the same picks and to the same end."""
    config = RunConfig(**WAVE, test_split="none", patience=patience, evaluate_every=every)
    whole = Past()
    steps = [whole := whole.after(line, config) for line in lines(changes)]
    cut = data.draw(st.integers(1, len(changes)))
    resumed = past(changes[:cut], config, steps[cut - 1].best(config))
    after = [resumed, *(resumed := resumed.after(line, config) for line in lines(changes[cut:], cut + 1))]
    for one, other in zip(after, steps[cut - 1 :], strict=True):
        assert one.best(config) == other.best(config)
        assert why_over(one, config) == why_over(other, config)


@given(SHARES, st.integers(0, 4))
def test_a_pick_is_never_ahead_of_its_time_nor_taken_back(changes: list[float | None], patience: int) -> None:
    config = RunConfig(**WAVE, patience=patience)
    bests = [past(changes[:number], config).best(config) for number in range(1, len(changes) + 1)]
    rounds = [best[0] if best else 0 for best in bests]
    assert rounds == sorted(rounds)
    assert all(best < number for number, best in enumerate(rounds, 1))
    for number, best in enumerate(rounds, 1):  # a new best is always the round before, whose checkpoint is at hand
        assert best in (number - 1, rounds[number - 2] if number > 1 else 0)
    final = patience or PATIENCE
    assert all(best is None or 0 <= best[1] <= 1 for best in bests)
    if bests[-1] and sum(number > rounds[-1] for number in past(changes, config).scores) >= final:
        assert past([*changes, 0.0, 0.0, 0.0], config).best(config) == bests[-1]


def test_another_patience_does_not_bring_back_a_model_that_is_gone() -> None:
    """Of a round that was passed over there is no checkpoint; the best one stays until a later round beats it."""
    changes = [None, *[0.3] * 3, *[0.5] * 8, *[0.2] * 4]
    before = RunConfig(**WAVE)
    best = past(changes, before).best(before)
    assert best is not None
    assert best[0] == 3
    patient = RunConfig(**WAVE, patience=50)
    assert past(changes, patient, best).best(patient) == best
    later = past(changes, patient, best)
    for line in lines([0.1] * 3, len(changes) + 1):
        later = later.after(line, patient)
    found = later.best(patient)
    assert found is not None
    assert found[0] > len(changes) - 1


@pytest.mark.parametrize("value", [None, "0.5", True, [], {}, float("nan"), float("inf"), -0.1, 1.1, 1e300])
def test_odd_values_count_as_missing(value: Any) -> None:
    config = RunConfig(**WAVE)
    odd = past_of(5, [{**line, "prediction-changes": value} for line in lines([0.1] * 5)], config)
    assert odd.scores == {}
    assert odd.best(config) is None
    assert not why_over(odd, config)


def test_a_round_without_a_value_neither_counts_nor_is_counted() -> None:
    config = RunConfig(**WAVE)
    found = past([None, 0.3, None, 0.3, None, 0.3, None], config)
    assert found.scores == {5: pytest.approx(0.7)}


def test_patience_counts_rounds_that_have_a_number() -> None:
    """With all clients new, rounds 5 to 7 say nothing; docs/no-clean-data.md speaks of rounds that have a number."""
    config = RunConfig(**WAVE, test_split="none", patience=2)
    changes = [None, 0.3, 0.3, 0.2, None, None, None, 0.5, 0.5]
    assert not why_over(past(changes[:8], config), config)
    best = past([*changes[:8], 0.0, 0.0], config).best(config)
    assert best is not None
    assert best[0] == 9
    assert "predictions changed least in round 3, and not less in 2 rounds since" in why_over(
        past(changes, config), config
    )
    # An accuracy is there in each evaluated round, and `patience` counts all rounds between these.
    accuracies = [
        {"round": number, "val-accuracy": score, "test-accuracy": 0.5} for number, score in ((3, 0.6), (6, 0.5))
    ]
    assert "for 3 rounds" in why_over(past_of(6, accuracies, RunConfig(patience=3)), RunConfig(patience=3))


@pytest.mark.parametrize("split", ["clean_val", "noisy"])
def test_an_accuracy_is_its_rounds_own_score(split: str) -> None:
    own: dict[str, Any] = {"eval_split": "own", "fraction_evaluate": 1.0, "holdout_fraction": 0.1}
    config = RunConfig(val_split=split, patience=2, test_split="none", **own)
    entries = [{"round": number, "val-accuracy": score} for number, score in enumerate([0.5, 0.6, 0.6, 0.4], 1)]
    found = past_of(4, entries, config)
    assert found.best(config) == (2, 0.6)
    assert "no better validation accuracy for 2 rounds" in why_over(found, config)
    without = RunConfig(val_split="none", test_split="none")
    assert past_of(4, entries, without).best(without) is None


def test_which_rounds_are_evaluated_follows_from_the_config_without_a_test_set() -> None:
    config = RunConfig(test_split="none", val_split="none", evaluate_every=3, num_server_rounds=7)
    assert [past_of(number, lines([None] * number), config).is_evaluated for number in range(1, 8)] == [
        False, False, True, False, False, True, True,
    ]  # fmt: skip
    assert not past_of(4, lines([None] * 3), config).is_evaluated  # the last line is lost


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_a_mean_lies_between(values: list[float]) -> None:
    assert min(values) - 1e-12 <= smoothed(values) <= max(values) + 1e-12
