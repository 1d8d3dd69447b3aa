"""What runs reached, by numbers worked out by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from runs.scores import COLUMNS, DEFAULT, last_rounds, scores
from tests.runs.made import line, made


def test_accuracies() -> None:
    values = [(0.1, 0.5), (0.7, 0.9), (0.8, 0.9), (0.6, 0.2)]
    found = scores(made(lines=[line(n, test, val_accuracy=val) for n, (test, val) in enumerate(values, start=1)]))
    assert found["last"] == pytest.approx(60)
    assert found["picked"] == pytest.approx(70)  # the first of two rounds that are equally good on validation
    assert found["best-on-test"] == pytest.approx(80)
    assert found["last10"] == pytest.approx(60)  # the last quarter of four rounds


@pytest.mark.parametrize(
    ("asked", "length"), [(1, 1), (4, 1), (5, 2), (8, 2), (14, 4), (20, 5), (36, 9), (37, 10), (40, 10), (400, 10)]
)
def test_the_mean_of_the_last_rounds_is_of_ten_or_a_quarter(asked: int, length: int) -> None:
    run = made([n / 1000 for n in range(asked)])
    assert last_rounds(run) == length
    mean = sum(range(asked - length, asked)) / length / 10
    assert scores(run)["last10"] == pytest.approx(mean)


def test_a_run_that_ended_early_is_averaged_over_as_many_rounds() -> None:
    run = made([0.1, 0.2, 0.3, 0.5], config={"num-server-rounds": 8}, record={"reason": "Stopped ('patience')."})
    assert scores(run)["last10"] == pytest.approx(40)


def test_rounds_that_were_not_evaluated_do_not_count() -> None:
    values = [None, 0.4, None, 0.8, None, 0.6, None, 0.2]
    found = scores(made(values, config={"evaluate-every": 2}))
    assert found["last10"] == pytest.approx(20)  # of rounds 7 and 8
    assert found["last"] == pytest.approx(20)
    assert found["rounds"] == 8
    assert found["images"] == 800


def test_the_last_rounds_end_with_one_that_was_evaluated() -> None:
    """Hours may end a run in a round that is not."""
    found = scores(made([0.1, 0.2, 0.3, 0.4, None, None], config={"num-server-rounds": 8}))
    assert found["last"] == pytest.approx(40)
    assert found["last10"] == pytest.approx(35)


def test_what_is_not_there_is_missing() -> None:
    assert "picked" not in scores(made())
    assert scores(made([])) == {}
    assert {"last", "images", "seconds", "picked"}.isdisjoint(scores(made([None], lines=[{"round": 1, **_NOTHING}])))


_NOTHING = {"test-accuracy": None, "images-seen": None, "seconds": math.nan}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "x", True, 10**400, [1]])
def test_values_that_are_no_numbers_are_missing(value: Any) -> None:
    lines = [line(1, 0.5, macro_f1=value, val_accuracy=value, per_class_recall=[value, 0.25, None])]
    lines[0] |= {"test-loss": value, "seconds": value, "images-seen": value}
    found = scores(made(lines=lines))
    assert {"macro-f1", "picked", "last-loss", "seconds", "minutes", "images"}.isdisjoint(found)
    assert found["worst-class"] == 25


def test_of_the_last_evaluated_round() -> None:
    lines = [
        line(1, 0.5, macro_f1=0.9, per_class_recall=[0.0, 1.0]),
        line(2, 0.6, macro_f1=0.5, per_class_recall=[0.3, 0.9, None]),
    ]
    found = scores(made(lines=[*lines, line(3, None)]))
    assert (found["macro-f1"], found["worst-class"], found["last-loss"]) == pytest.approx((50, 30, 0.4))


def test_judgements_are_of_the_last_round_that_has_them() -> None:
    judged = {"corrected_label_accuracy": 0.75, "suspects_precision": 0.5, "suspects_recall": 0.25}
    judged |= {"suspects_at_budget_precision": 0.75, "suspects_at_budget_fnr": 0.25}
    found = scores(
        made(
            lines=[line(1, 0.5, noisy_clients_precision=1.0, suspects_recall=1.0), line(2, 0.5, **judged), line(3, 0.5)]
        )
    )
    assert [found[key] for key in ("corrected-label-accuracy", "suspects-precision", "suspects-recall")] == [75, 50, 25]
    assert [found["suspects-at-budget-precision"], found["suspects-at-budget-fnr"]] == [75, 25]
    assert found["noisy-clients-precision"] == 100
    assert "noisy-clients-recall" not in found


def test_costs() -> None:
    assert "images" not in scores(made(lines=[line(1, 0.5), line(2, 0.5, images_seen=None)]))
    found = scores(made([0.5, 0.6, 0.7]))
    assert (found["seconds"], found["minutes"], found["images"], found["rounds"]) == (6, 0.1, 300, 3)


def test_rounds_to_a_target() -> None:
    run = made([0.5, None, 0.6, 0.55, 0.7])
    assert "rounds-to-target" not in scores(run)
    assert scores(run, 0.6)["rounds-to-target"] == 3
    assert scores(run, 0.2)["rounds-to-target"] == 1
    assert "rounds-to-target" not in scores(run, 0.71)


def test_bytes_of_training_there_and_back() -> None:
    lines = [
        line(1, 0.5, sent_bytes=200, received_bytes=100, eval_bytes=7000),
        line(2, 0.5, sent_bytes=300, received_bytes=0, query_bytes=1000),
    ]
    found = scores(made(lines=lines))
    assert (found["bytes"], found["bytes-per-round"]) == (1600, 800)


@pytest.mark.parametrize("missing", ["sent_bytes", "received_bytes"])
@pytest.mark.parametrize("value", [None, "x", math.nan])
def test_bytes_are_missing_if_a_round_does_not_say(missing: str, value: Any) -> None:
    """As in folders of earlier versions."""
    whole: dict[str, Any] = {"sent_bytes": 200, "received_bytes": 100}
    lines = [line(1, 0.5, **whole), line(2, 0.5, **{**whole, missing: value})]
    assert {"bytes", "bytes-per-round"}.isdisjoint(scores(made(lines=lines)))
    assert {"bytes", "bytes-per-round"}.isdisjoint(scores(made()))


def test_every_score_has_a_column_and_the_page_names_all() -> None:
    lines = [line(1, 0.5, val_accuracy=0.5, macro_f1=0.5, per_class_recall=[0.5])]
    assert scores(made(lines=lines), 0.1).keys() <= COLUMNS.keys()
    assert set(DEFAULT) <= COLUMNS.keys()
    assert [key for key, column in COLUMNS.items() if column.picked_on_test] == ["best-on-test"]
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    for key in COLUMNS:
        assert f"`{key}`" in page
