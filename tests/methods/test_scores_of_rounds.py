"""Shares from counts, by hand."""

from methods.scores import image_scores

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
