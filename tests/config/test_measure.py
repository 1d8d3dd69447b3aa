"""What the accuracies of a run are measured on, for each way to go without a test set."""

from typing import Any

import pytest

from config import measure
from config.choices import VAL_SPLITS
from config.measure import measure_of, on_clients_of, validation_of
from config.run_config import RunConfig

OWN = {"eval-split": "own", "holdout-fraction": 0.1, "fraction-evaluate": 0.5}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, measure.CLEAN_VAL),
        ({"val-split": "clean_train"}, measure.CLEAN_TRAIN),
        ({"val-split": "noisy", **OWN}, measure.NOISY_VAL),
        ({"val-split": "label-wave", **OWN}, measure.HELD_OUT),
        ({"val-split": "none", **OWN}, measure.HELD_OUT),
        ({"val-split": "none", "fraction-evaluate": 0.5}, measure.CLEAN_SLICES),
        ({"val-split": "none", "holdout-fraction": 0.1}, measure.VISITS),
        ({"val-split": "label-wave", "inspection": "before"}, measure.NOTHING),
        ({"val-split": "none"}, measure.NOTHING),
    ],
)
def test_without_a_test_set_it_is_the_best_that_there_is(config: dict[str, Any], expected: measure.Measure) -> None:
    whole = {**RunConfig().to_flat(), **config}
    assert measure_of({**whole, "test-split": "none"}) is expected
    assert measure_of(whole) is measure.CLEAN_TEST
    assert bool(expected) == (expected is not measure.NOTHING)


def test_folders_of_earlier_versions_were_measured_on_clean_test() -> None:
    assert measure_of({}) is measure.CLEAN_TEST
    assert validation_of({}) is measure.CLEAN_VAL
    assert on_clients_of({}) is measure.NOTHING


def test_every_kind_of_validation_is_known() -> None:
    found = {split: validation_of({"val-split": split}).name for split in VAL_SPLITS}
    assert found == {
        "clean_val": "clean validation", "clean_train": "clean train", "label-wave": "nothing", "none": "nothing",
        "noisy": "clients' held-out images (their own labels)",
    }  # fmt: skip
