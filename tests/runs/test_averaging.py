"""Which runs of a line are averaged, and what is said of the others."""

import pytest

from runs.entries import Entry
from runs.table import table_of
from tests.runs.made import DATA, entry, lines_of, made, without_record


def test_runs_that_differ_are_listed_and_not_averaged() -> None:
    runs = [entry("ce", 1), entry("ce", 2), entry("ce", 3, 0.9, record={"code": ["new"]})]
    table = table_of(runs)
    assert lines_of(table)["ce"].stats["last"].mean == pytest.approx(50)
    assert lines_of(table)["ce"].stats["last"].seeds == 2
    said = "ce: ce-3 is not averaged with ce-1: The code differs: c0de in ce-1, new in ce-3."
    assert table.problems == (said,)
    assert table.sections[0].notes == (said,)


def test_a_seed_that_ran_twice_counts_once() -> None:
    later = {"started": "2026-02-01T00:00:00+00:00"}
    table = table_of([entry("ce", 1, 0.5), entry("ce", 1, 0.7, name="again", record=later)])
    assert lines_of(table)["ce"].stats["last"].by_seed == pytest.approx({1: 70})
    assert table.problems == ("ce: ce-1 is left out: again is the same experiment with the same seed.",)


def test_runs_of_earlier_versions_are_not_averaged() -> None:
    runs = [Entry("ce", without_record(made([0.5] * 4, name=f"old-{seed}", seed=seed))) for seed in (1, 2)]
    table = table_of(runs)
    assert lines_of(table)["ce"].stats["last"].seeds == 1
    assert "The code is unknown for old-2 and for old-1." in table.problems[0]


def test_seeds_whose_best_round_other_lists_picked_are_not_averaged() -> None:
    other = {**DATA, "clean_val": "07e7"}
    table = table_of([entry("ce", 1), entry("ce", 2), entry("ce", 3, record={"data": other})])
    assert [run.name for run in lines_of(table)["ce"].runs] == ["ce-1", "ce-2"]
    assert table.problems == (
        "ce: ce-3 is not averaged with ce-1: The list that picks the best round differs: clean_val (7a1) in ce-1,"
        " clean_val (07e7) in ce-3.",
    )


def test_of_groups_of_one_size_that_with_the_newest_run_is_averaged() -> None:
    """Its oldest run may be the oldest of all."""
    ages = {"first": (1, 9), "second": (2, 8)}
    rates = {"first": 0.1, "second": 0.2}
    runs = [
        entry("ce", seed, name=f"{group}-{seed}", config={"learning-rate": rates[group]}, record={"started": f"{age}"})
        for group, own in ages.items()
        for seed, age in enumerate(own, start=1)
    ]
    assert [run.name for run in lines_of(table_of(runs))["ce"].runs] == ["first-1", "first-2"]
