"""Counts over images whose true label is known, by hand."""

from dataclasses import dataclass

import numpy as np
import torch

from learning.method import Method
from methods.ce import CE
from methods.scores import counts
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
    }  # fmt: skip


def test_a_client_that_judged_nothing_believes_its_labels_and_sends_the_same_names() -> None:
    assert counts(Judging(), visit_of(GIVEN), TRUE) == {
        "images-known": 3.0, "labels-right": 1.0, "corrected-right": 1.0, "suspected": 0.0, "suspected-wrong": 0.0,
    }  # fmt: skip


def test_methods_that_judge_nothing_send_nothing() -> None:
    assert counts(CE(), visit_of(GIVEN), TRUE) == {}
