"""Tables of runs: what is averaged, compared and left out, and what is said about it."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.entries import Entry
from runs.errors import RunsError
from runs.table import Table, table_of
from tests.odd_values import is_a_sentence
from tests.runs.made import DATA, GCE, entry, line, lines_of, made

THREE = [entry("ce", 1, 0.50), entry("ce", 2, 0.52), entry("gce", 1, 0.55), entry("gce", 2, 0.58), entry("gce", 3, 0.7)]


def test_means_and_differences_by_hand() -> None:
    """Seeds 1 and 2 are pairs, with differences of 5 and 6 points; t of 1 degree of freedom at 0.975 is 12.7062."""
    table = table_of(THREE, baseline="ce")
    lines = lines_of(table)
    base, own = lines["ce"].stats["last"], lines["gce"].stats["last"]
    assert (base.mean, base.seeds, base.pairs) == pytest.approx((51, 2, 0))
    assert base.difference is None
    assert (own.mean, own.seeds, own.pairs) == pytest.approx((61, 3, 2))
    assert own.difference == pytest.approx(5.5)
    assert own.interval == pytest.approx(12.7062 * 0.5, abs=1e-3)  # deviation sqrt(0.5), divided by sqrt(2)
    assert own.by_seed == pytest.approx({1: 55, 2: 58, 3: 70})
    assert [run.name for run in lines["gce"].runs] == ["gce-1", "gce-2", "gce-3"]
    assert table.sections[0].baseline == "ce"
    assert table.sections[0].title == "labels as released, iid, 10 clients"
    assert (table.problems, table.sections[0].notes, lines["gce"].note) == ((), (), "")


@settings(max_examples=25)
@given(st.permutations(THREE))
def test_the_order_of_runs_changes_no_number(order: Sequence[Entry]) -> None:
    assert lines_of(table_of(order, baseline="ce")) == lines_of(table_of(THREE, baseline="ce"))


def test_lines_come_in_the_order_of_labels() -> None:
    assert [*lines_of(table_of(THREE[::-1], baseline="ce"))] == ["gce", "ce"]


def test_what_test_picked_stands_at_the_end_and_is_compared_with_nothing() -> None:
    table = table_of(THREE, ["best-on-test", "last"], baseline="ce")
    assert [(column.key, column.picked_on_test) for column in table.columns] == [
        ("last", False),
        ("best-on-test", True),
    ]
    assert lines_of(table)["gce"].stats["best-on-test"].difference is None


def test_another_partition_is_refused() -> None:
    """Whether it is a part of its own, or one setting is claimed for both."""
    config = {"partition": "dirichlet", "partition-args": "alpha=0.3"}
    other: dict[str, Any] = {"config": config, "record": {"held": "x"}}
    table = table_of([entry("ce", 1), entry("gce", 1, **other)], baseline="ce")
    why = "The partition differs: dirichlet (alpha=0.3) in gce-1, iid in ce-1."
    assert [section.baseline for section in table.sections] == ["ce", ""]
    assert table.problems == (
        "labels as released, dirichlet (alpha=0.3), 10 clients: There is no complete run of ce here to compare with;"
        f" the nearest is ce-1. {why}",
    )
    table = table_of([entry("ce", 1, setting="x"), entry("gce", 1, setting="x", **other)], baseline="ce")
    own = lines_of(table)["gce"]
    assert own.stats["last"].difference is None
    assert own.note == f"Not compared with ce. {why}"
    assert table.problems == (f"gce: {own.note}",)
    assert is_a_sentence(table.problems[0])


def test_a_partition_that_was_dealt_otherwise_is_refused() -> None:
    table = table_of([entry("ce", 1), entry("gce", 1, record={"held": "x"})], baseline="ce")
    assert lines_of(table)["gce"].stats["last"].difference is None
    assert "The split of images between clients differs: x in gce-1, held-1 in ce-1." in table.problems[0]


def test_pairs_that_are_comparable_are_compared_without_the_others() -> None:
    runs = [*THREE[:4], entry("ce", 3, 0.9), entry("gce", 3, 0.1, record={"held": "x"})]
    table = table_of(runs, baseline="ce")
    stat, note = lines_of(table)["gce"].stats["last"], lines_of(table)["gce"].note
    assert (stat.difference, stat.pairs, stat.seeds) == pytest.approx((5.5, 2, 3))
    assert note.startswith("Not compared with ce. Seed 3: The split of images")
    assert len(table.problems) == 1


def test_references_are_not_compared_and_no_problem() -> None:
    true: dict[str, Any] = {"record": {"held": "x", "data": {**DATA, "train": "true"}}}
    runs = [entry("ce", 1, setting="x"), entry("ceiling", 1, 0.9, setting="x", reference=True, **true)]
    table = table_of(runs, baseline="ce")
    own = lines_of(table)["ceiling"]
    assert own.stats["last"].mean == pytest.approx(90)
    assert own.stats["last"].difference is None
    assert "The list of training images differs" in own.note
    assert table.problems == ()


def test_a_reference_stands_beside_what_it_is_a_reference_for() -> None:
    true: dict[str, Any] = {"record": {"held": "x", "data": {**DATA, "train": "true"}}}
    ceiling = entry("ceiling", 1, 0.9, reference=True, **true)
    (section,) = table_of([ceiling, entry("ce", 1)], baseline="ce").sections
    assert [line.label for line in section.lines] == ["ceiling", "ce"]
    assert section.title == table_of([entry("ce", 1)]).sections[0].title
    dealt = entry("ce", 1, config={"partition": "shards"}, record={"held": "y", "data": DATA})
    of_which = table_of([entry("ce", 1), dealt, ceiling], baseline="ce")  # of two settings neither is its own
    assert [[line.label for line in section.lines] for section in of_which.sections] == [["ce"], ["ce"], ["ceiling"]]
    assert of_which.problems == ()
    assert "no complete run of ce" in of_which.sections[2].notes[0]


def test_seeds_in_common_are_needed() -> None:
    table = table_of([entry("ce", 1), entry("gce", 2)], baseline="ce")
    assert lines_of(table)["gce"].note == "Not compared with ce. They have no seed in common."
    assert len(table.problems) == 1


def test_unfinished_runs_are_named_and_left_out() -> None:
    stopped = entry("ce", 2, record={"how": "stopped", "reason": "No client answered."})
    killed = entry("ce", 3, record={"how": ""}, config={"num-server-rounds": 9})
    table = table_of([entry("ce", 1), stopped, killed])
    assert lines_of(table)["ce"].stats["last"].seeds == 1
    assert table.sections[0].notes == (
        "Left out: ce, seed 2 (ce-2), stopped after round 4 of 4: No client answered.",
        "Left out: ce, seed 3 (ce-3), interrupted after round 4 of 9.",
    )
    assert table.problems == ()


def test_a_part_without_complete_runs_has_no_lines_and_no_problem() -> None:
    table = table_of([entry("ce", 1, record={"how": ""})], baseline="ce")
    assert table.sections[0].lines == ()
    assert table.problems == ()


def test_data_of_one_name_is_told_apart() -> None:
    other = entry("ce", 1, name="other", record={"data": {**DATA, "clean_test": "x"}})
    table = table_of([entry("ce", 1), other])
    assert [section.title for section in table.sections] == [
        "labels as released, iid, 10 clients",
        "labels as released, iid, 10 clients (other data, 2)",
    ]


def test_a_target_that_some_did_not_reach_is_not_averaged() -> None:
    runs = [entry("ce", 1, 0.7), entry("ce", 2, 0.7), entry("gce", 1, 0.7), entry("gce", 2, 0.5), entry("sce", 1, 0.7)]
    table = table_of(runs, baseline="gce", target=0.6)
    lines = lines_of(table)
    assert table.columns[-2].title == "rounds to 60 %"
    assert lines["ce"].stats["rounds-to-target"].mean == 1
    assert lines["ce"].stats["rounds-to-target"].difference is None  # the baseline has no number
    assert lines["gce"].instead == {"rounds-to-target": "1 of 2 reached it"}
    assert "rounds-to-target" not in lines["gce"].stats
    assert lines_of(table_of(runs, baseline="ce", target=0.6))["sce"].stats["rounds-to-target"].difference == 0


def test_a_column_that_no_run_has_is_not_shown_unless_it_is_asked_for() -> None:
    assert [column.key for column in table_of(THREE).columns] == ["last", "last10", "best-on-test"]
    table = table_of(THREE, ["picked"])
    assert [column.key for column in table.columns] == ["picked"]
    assert "picked" not in lines_of(table)["ce"].stats
    validated = Entry("ce", made(lines=[line(1, 0.5, val_accuracy=0.5)]))
    assert [column.key for column in table_of([validated]).columns] == ["last", "last10", "picked", "best-on-test"]


@pytest.mark.parametrize(
    ("rounds", "title"),
    [
        ((40,), "mean of the last 10 rounds"),
        ((20,), "mean of the last 5 rounds"),
        ((3,), "last 1 round (a quarter)"),
        ((40, 20), "mean of the last 10 rounds, or the last quarter"),
    ],
)
def test_the_last_rounds_say_how_many(rounds: tuple[int, ...], title: str) -> None:
    runs = [Entry(str(count), made([0.5] * count)) for count in rounds]
    assert table_of(runs).columns[1].title == title


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"columns": ["lats"]}, "there is no column 'lats' (did you mean 'last'?); columns are last, last10, "),
        ({"baseline": "cee"}, "there is no line 'cee'"),
        (
            {"columns": ["rounds-to-target"]},
            "the column 'rounds-to-target' needs a target, such as an accuracy of 0.6.",
        ),
        ({"target": 60.0}, "the target is 60; it must be an accuracy, above 0 and at most 1."),
        ({"target": float("nan")}, "the target is nan; it must be"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RunsError) as error:
        table_of(THREE, **asked)
    assert str(error.value).startswith(sentence)
    assert is_a_sentence(str(error.value))


def test_a_table_of_nothing() -> None:
    assert table_of([]) == Table((), ())


def test_a_finished_run_that_has_lost_rounds_is_no_result() -> None:
    """Its last line may be of an earlier round, and its images are fewer than it saw."""
    lines = [line(number, 0.9) for number in (1, 2, 3)]
    cut = Entry("gce", made(name="cut", lines=lines, config={**GCE, "num-server-rounds": 4}))
    table = table_of([entry("ce", 1), cut], baseline="ce")
    assert [*lines_of(table)] == ["ce"]
    assert table.problems == ("gce: cut is left out: its metrics.jsonl lacks 1 of 4 rounds.",)
    gap = Entry("gce", made(name="gap", lines=[line(1, 0.9), line(3, 0.9)], config={**GCE, "num-server-rounds": 3}))
    empty = Entry("gce", made(name="empty", lines=[], config=GCE))
    unevaluated = Entry("gce", made([None], name="unevaluated", config=GCE))
    table = table_of([entry("ce", 1), gap, empty, unevaluated], baseline="ce")
    assert [*lines_of(table)] == ["ce"]
    assert [problem.partition(" is left out: its metrics.jsonl ")[::2] for problem in table.problems] == [
        ("gce: gap", "lacks 1 of 3 rounds."),
        ("gce: empty", "holds no round that was evaluated."),
        ("gce: unevaluated", "holds no round that was evaluated."),
    ]


def test_a_run_that_a_rule_ended_has_lost_nothing() -> None:
    early = made([0.5] * 3, config={"num-server-rounds": 9}, record={"reason": "Stopped after round 3 of 9: x."})
    assert table_of([Entry("ce", early)]).problems == ()
