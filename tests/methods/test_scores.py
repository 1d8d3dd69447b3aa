"""Counts over images whose true label is known, and shares from counts, by hand."""

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learning.method import Method
from learning.schema import problem_of
from messages import keys
from methods.ce import CE
from methods.scores import counts, found_in_budget, image_scores, reported_counts
from tests.batches_of import visit_of
from tests.fakes import rounds_of, run_in_process


@dataclass(frozen=True)
class Judging(Method):
    corrects = True
    suspects = True


# given, true: right, wrong, unknown, wrong
GIVEN, TRUE = torch.tensor([0, 1, 2, 1]), np.array([0, 2, -1, 0], dtype=np.int32)
NO_BUDGET = {"suspects-budget": 0.0, "suspects-budget-wrong": 0.0}


def test_counts_by_hand() -> None:
    visit = visit_of(GIVEN, corrected=torch.tensor([0, 2, 0, 2]), suspected=torch.tensor([True, True, True, False]))
    assert counts(Judging(), visit, TRUE) == {
        "images-known": 3.0, "labels-right": 1.0, "corrected-known": 3.0, "corrected-right": 2.0, "suspected": 2.0,
        "suspected-wrong": 1.0, **NO_BUDGET,
        keys.CORRECTED: 3.0, keys.SUSPECTED: 3.0,  # also the image of which nobody knows what it shows
    }  # fmt: skip


def test_a_client_that_judged_nothing_believes_its_labels_and_sends_the_same_names() -> None:
    assert counts(Judging(), visit_of(GIVEN), TRUE) == {
        "images-known": 3.0, "labels-right": 1.0, "corrected-known": 3.0, "corrected-right": 1.0, "suspected": 0.0,
        "suspected-wrong": 0.0, **NO_BUDGET, keys.CORRECTED: 0.0, keys.SUSPECTED: 0.0,
    }  # fmt: skip


def test_labels_known_to_be_wrong_judge_suspects_and_corrections_that_leave_them() -> None:
    """Of four images whose labels are known to be wrong, without a true one, and one whose label is right.

    Two of the four are suspected, and of the four one is corrected to whatever it may show: nobody knows.
    """
    true = np.array([-2, -2, -2, -2, 1], dtype=np.int32)
    visit = visit_of(
        torch.tensor([0, 1, 2, 0, 1]), corrected=torch.tensor([0, 1, 2, 3, 1]),
        suspected=torch.tensor([True, True, False, False, True]), suspicion=torch.tensor([5.0, 4.0, 0.0, 1.0, 3.0]),
    )  # fmt: skip
    sent = counts(Judging(), visit, true)
    assert sent == {
        "images-known": 5.0, "labels-right": 1.0, "corrected-known": 4.0, "corrected-right": 1.0, "suspected": 3.0,
        "suspected-wrong": 2.0, "suspects-budget": 4.0, "suspects-budget-wrong": 3.0,
        keys.CORRECTED: 1.0, keys.SUSPECTED: 3.0,
    }  # fmt: skip
    assert image_scores([sent]) == {
        "label-accuracy": 0.2, "corrected-label-accuracy": 0.25, "suspects-precision": pytest.approx(2 / 3),
        "suspects-recall": 0.5, "suspects-at-budget-precision": 0.75, "suspects-at-budget-fnr": 0.25,
    }  # fmt: skip
    all_changed = counts(Judging(), visit_of(torch.tensor([0]), corrected=torch.tensor([1])), true[:1])
    assert (all_changed["images-known"], all_changed["corrected-known"]) == (1.0, 0.0)
    assert "corrected-label-accuracy" not in image_scores([all_changed])


def test_methods_that_judge_nothing_send_nothing() -> None:
    assert counts(CE(), visit_of(GIVEN), TRUE) == {}
    assert reported_counts(CE(), 4) == {}


def test_no_more_images_are_judged_than_a_client_holds() -> None:
    sent = counts(Judging(), visit_of(GIVEN, suspected=torch.ones(4, dtype=torch.bool)), TRUE)
    assert problem_of(sent, reported_counts(Judging(), 4)) is None
    assert (
        problem_of(sent, reported_counts(Judging(), 3))
        == "'suspected-images' is 4.0; it must be a whole number from 0 to 3"
    )


ONE = {
    "images-known": 10.0, "labels-right": 6.0, "corrected-known": 10.0, "corrected-right": 8.0, "suspected": 5.0,
    "suspected-wrong": 3.0,
}  # fmt: skip
OTHER = {
    "images-known": 30.0, "labels-right": 24.0, "corrected-known": 30.0, "corrected-right": 20.0, "suspected": 5.0,
    "suspected-wrong": 3.0,
}  # fmt: skip


def test_counts_are_added_up_before_they_are_divided() -> None:
    assert image_scores([ONE, OTHER]) == {
        "label-accuracy": 0.75, "corrected-label-accuracy": 0.7, "suspects-precision": 0.6, "suspects-recall": 0.6,
    }  # fmt: skip


def test_judgements_that_a_method_does_not_make_are_left_out() -> None:
    assert image_scores([{"images-known": 4.0, "labels-right": 4.0}]) == {"label-accuracy": 1.0}
    assert image_scores([{"train-loss": 1.0}]) == {}
    assert image_scores([]) == {}


def test_shares_of_nothing_are_left_out() -> None:
    nothing = {"images-known": 4.0, "labels-right": 4.0, "suspected": 0.0, "suspected-wrong": 0.0}
    assert image_scores([nothing]) == {"label-accuracy": 1.0}
    assert image_scores([dict.fromkeys(ONE, 0.0)]) == {}


RANKED = np.array([0.9, 0.8, 0.5, 0.5, 0.5, 0.1], dtype=np.float32)
ALTERNATING = np.array([True, False] * 3)


@pytest.mark.parametrize(
    ("suspicion", "wrong", "found"),
    [
        # Of three, 0.9 (wrong) and 0.8 are in, and one of three with 0.5, of which two are wrong.
        (RANKED, ALTERNATING, 1 + 2 / 3),
        # Of two, 0.9 and 0.8: no tie reaches them.
        (RANKED, [False, True, True, False, False, False], 1.0),
        # Of four, two of the three with 0.5, of which one is wrong; 0.1 is not in.
        (RANKED, [True, True, False, True, False, True], 2 + 2 / 3),
        ([3.0, 3.0, 1.0, 1.0], [False, False, True, True], 0.0),
        ([-2.0, -2.0, -1.0], [True, False, False], 0.0),
        ([-2.0, -2.0, -1.0], [False, False, True], 1.0),
        ([0.0] * 5, [True, True, False, False, False], 2 * 2 / 5),
        ([0.7], [True], 1.0),
        ([0.7, 0.7], [False, False], 0.0),
        ([], [], 0.0),
    ],
)  # fmt: skip
def test_what_a_budget_of_as_many_as_are_wrong_finds(suspicion: Any, wrong: Any, found: float) -> None:
    assert found_in_budget(np.array(suspicion), np.array(wrong, dtype=bool)) == pytest.approx(found, abs=1e-12)


TIED = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)
MANY = st.lists(st.tuples(st.floats(-1000, 1000, width=16), st.booleans()), min_size=1, max_size=60)


@given(TIED)
def test_ties_are_worth_what_chance_finds_on_average(images: list[tuple[int, bool]]) -> None:
    """Over all orders of the images, sorted by suspicion alone."""
    budget = sum(wrong for _, wrong in images)
    orders = [sorted(order, key=lambda image: -image[0]) for order in permutations(images)]
    mean = Fraction(sum(sum(wrong for _, wrong in order[:budget]) for order in orders), len(orders))
    suspicion, wrong = (np.array(column) for column in zip(*images, strict=True))
    assert found_in_budget(suspicion, wrong) == pytest.approx(float(mean), abs=1e-12)


@given(MANY, st.randoms())
def test_budgets_keep_their_bounds_whatever_the_order(images: list[tuple[float, bool]], chance: Any) -> None:
    suspicion, wrong = (np.array(column) for column in zip(*images, strict=True))
    budget, count = int(wrong.sum()), len(wrong)
    found = found_in_budget(suspicion, wrong)
    # As many as are wrong cannot all be right, unless there are that many right ones.
    assert max(0, 2 * budget - count) <= found <= budget
    shuffled = chance.sample(range(count), count)
    assert found_in_budget(suspicion[shuffled], wrong[shuffled]) == found
    assert found_in_budget(np.full(count, suspicion[0]), wrong) == pytest.approx(budget**2 / count)
    assert found_in_budget(wrong.astype(np.float32), wrong) == budget
    assert found_in_budget(-wrong.astype(np.float32), wrong) == pytest.approx(max(0, 2 * budget - count))


def test_the_budget_is_counted_among_images_whose_truth_is_known() -> None:
    """The most suspect image is one of which nobody knows what it shows; of the others, 1 and 3 are wrong."""
    for suspicion, found in (([0.2, 0.3, 0.9, 0.4], 2.0), ([0.3, 0.2, 0.9, 0.4], 1.0), ([0.5] * 4, 4 / 3)):
        sent = counts(Judging(), visit_of(GIVEN, suspicion=torch.tensor(suspicion)), TRUE)
        assert sent["suspects-budget"] == 2
        assert sent["suspects-budget-wrong"] == pytest.approx(found)
        assert problem_of(sent, reported_counts(Judging(), 4)) is None
    nothing_known = counts(Judging(), visit_of(GIVEN, suspicion=torch.rand(4)), np.full(4, -1, np.int32))
    assert nothing_known.items() >= {**NO_BUDGET, "images-known": 0.0}.items()


def test_a_clients_numbers_are_within_its_images() -> None:
    sent = counts(Judging(), visit_of(GIVEN, suspicion=torch.arange(4.0)), TRUE)
    schema = reported_counts(Judging(), 4)
    assert schema.keys() == sent.keys()
    for name, value, sentence in (
        ("suspects-budget", 1.5, "is 1.5; it must be a whole number from 0 to 4"),
        ("suspects-budget", 5.0, "is 5.0; it must be a whole number from 0 to 4"),
        ("suspects-budget-wrong", -0.5, "is -0.5; it must be a number from 0 to 4"),
        ("suspects-budget-wrong", math.nan, "is nan; it must be a number from 0 to 4"),
    ):
        assert problem_of({**sent, name: value}, schema) == f"'{name}' {sentence}"


BUDGETS = [
    {"suspects-budget": 3.0, "suspects-budget-wrong": 5 / 3},
    {"suspects-budget": 1.0, "suspects-budget-wrong": 0.25},
]


def test_scores_at_the_budget_by_hand() -> None:
    """The example of docs/metrics.md: 5/3 + 1/4 = 23/12 of 4."""
    known = [{"images-known": 6.0, "labels-right": 3.0}, {"images-known": 4.0, "labels-right": 3.0}]
    found = image_scores(
        [one | {"suspected": 0.0, "suspected-wrong": 0.0} | more for one, more in zip(known, BUDGETS, strict=True)]
    )
    assert found == {
        "label-accuracy": 0.6, "suspects-recall": 0.0, "suspects-at-budget-precision": pytest.approx(23 / 48),
        "suspects-at-budget-fnr": pytest.approx(25 / 48),
    }  # fmt: skip


def test_clients_that_rank_nothing_do_not_count_at_the_budget() -> None:
    """As with a method that warms up at some clients, or one that leaves no suspicion at all."""
    ranking, silent = {**ONE, "suspects-budget": 4.0, "suspects-budget-wrong": 3.0}, {**OTHER, **NO_BUDGET}
    found = image_scores([silent, ranking])
    assert (found["suspects-at-budget-precision"], found["suspects-at-budget-fnr"]) == (0.75, 0.25)
    assert not {name for name in image_scores([silent, ONE]) if "budget" in name}


HOSTILE = st.fixed_dictionaries(
    {name: st.sampled_from([0, 1, 9]) for name in ONE}
    | {"suspects-budget": st.sampled_from([0, 1, 9]), "suspects-budget-wrong": st.floats(0, 9)}
)


@given(st.lists(HOSTILE, max_size=3))
def test_no_counts_that_the_server_admits_give_a_score_that_is_no_share(replies: list[dict[str, float]]) -> None:
    for sent in replies:
        assert problem_of({**sent, keys.SUSPECTED: 0, keys.CORRECTED: 0}, reported_counts(Judging(), 9)) is None
    assert all(0 <= score <= 1 for score in image_scores(replies).values())


def test_a_run_reports_scores_at_the_budget_each_round(tmp_path: Path, tiny_sample: Path) -> None:
    """Already in round 1, in which co-teaching suspects nobody."""
    run_dir = run_in_process(
        tmp_path, data_dir=str(tiny_sample), method="co-teaching", method_args="warm-up-rounds=2", model="cnn"
    )
    lines = rounds_of(run_dir)
    assert ["suspects-precision" in line for line in lines] == [False, True]
    visits = [json.loads(text) for text in (run_dir / "clients.jsonl").read_text().splitlines()]
    for line in lines:
        clients = [visit for visit in visits if visit["round"] == line["round"]]
        for visit in clients:
            assert visit["suspects-budget"] == visit["images-known"] - visit["labels-right"] > 0
        budget, found = (sum(one[name] for one in clients) for name in ("suspects-budget", "suspects-budget-wrong"))
        assert line["suspects-at-budget-precision"] == pytest.approx(found / budget)
        assert line["suspects-at-budget-fnr"] == pytest.approx(1 - found / budget)
