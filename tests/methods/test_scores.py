"""Counts over images whose true label is known, and shares from counts, by hand."""

from dataclasses import dataclass

import numpy as np
import torch

from learning.method import Method
from learning.schema import problem_of
from messages import keys
from methods.ce import CE
from methods.scores import counts, image_scores, reported_counts
from tests.batches_of import visit_of


@dataclass(frozen=True)
class Judging(Method):
    corrects = True
    suspects = True


# given, true: right, wrong, unknown, wrong
GIVEN, TRUE = torch.tensor([0, 1, 2, 1]), np.array([0, 2, -1, 0], dtype=np.int32)


def test_counts_by_hand() -> None:
    visit = visit_of(GIVEN, corrected=torch.tensor([0, 2, 0, 2]), suspected=torch.tensor([True, True, True, False]))
    assert counts(Judging(), visit, TRUE) == {
        "images-known": 3.0, "labels-right": 1.0, "corrected-right": 2.0, "suspected": 2.0, "suspected-wrong": 1.0,
        keys.CORRECTED: 3.0, keys.SUSPECTED: 3.0,  # also the image of which nobody knows what it shows
    }  # fmt: skip


def test_a_client_that_judged_nothing_believes_its_labels_and_sends_the_same_names() -> None:
    assert counts(Judging(), visit_of(GIVEN), TRUE) == {
        "images-known": 3.0, "labels-right": 1.0, "corrected-right": 1.0, "suspected": 0.0, "suspected-wrong": 0.0,
        keys.CORRECTED: 0.0, keys.SUSPECTED: 0.0,
    }  # fmt: skip


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


ONE = {"images-known": 10.0, "labels-right": 6.0, "corrected-right": 8.0, "suspected": 5.0, "suspected-wrong": 3.0}
OTHER = {"images-known": 30.0, "labels-right": 24.0, "corrected-right": 20.0, "suspected": 5.0, "suspected-wrong": 3.0}


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
