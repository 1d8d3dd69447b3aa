"""Means, percentiles and the worst tenth over clients, worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.over_clients import means, percentiles, spreads, summary, worst_tenth

ELEVEN = [0.20, 0.40, 0.50, 0.52, 0.55, 0.60, 0.61, 0.65, 0.70, 0.72, 0.90]


def _report(images: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"images": images, "train-loss": loss, **{name.replace("_", "-"): one for name, one in more.items()}}


def test_the_example_of_the_page() -> None:
    """docs/metrics.md works it out."""
    reports = [_report(1, 1.0, own_accuracy_before=one, own_examples=5) for one in reversed(ELEVEN)]
    found = summary(reports)
    assert found["own-accuracy-before-percentiles"] == pytest.approx([0.40, 0.51, 0.60, 0.675, 0.72])
    assert found["own-accuracy-before-worst-tenth"] == pytest.approx(0.30)
    assert found["own-accuracy-before"] == pytest.approx(sum(ELEVEN) / 11)


@pytest.mark.parametrize(("count", "worst"), [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (21, 3), (100, 10)])
def test_the_worst_tenth_is_rounded_up(count: int, worst: int) -> None:
    values = [float(one) for one in range(count)]
    assert worst_tenth(values, high_is_bad=False) == pytest.approx((worst - 1) / 2)
    assert worst_tenth(values, high_is_bad=True) == pytest.approx(count - 1 - (worst - 1) / 2)


def test_high_losses_and_low_shares_are_bad() -> None:
    reports = [_report(1, loss, agreement_before=share) for loss, share in ((0.5, 0.9), (2.0, 0.1), (1.0, 0.5))]
    found = spreads(reports)
    assert found["train-loss-worst-tenth"] == 2.0
    assert found["agreement-before-worst-tenth"] == 0.1
    assert found["train-loss-percentiles"] == pytest.approx([0.6, 0.75, 1.0, 1.5, 1.8])


def test_means_weight_by_the_images_that_a_number_is_about() -> None:
    reports = [
        _report(10, 1.0, loss_before=2.0, own_loss_before=1.0, own_examples=30),
        _report(30, 1.0, loss_before=1.0, own_loss_before=2.0, own_examples=10),
    ]
    assert means(reports) == pytest.approx({"loss-before": 1.25, "own-loss-before": 1.25})


def test_images_that_do_not_count_in_the_mean_of_models_count_in_what_is_said_of_all() -> None:
    """With weigh-by='used' a client's num-examples are those of its images that it trusts."""
    reports = [
        _report(30, 1.0, prediction_changes=0.5, num_examples=1),
        _report(10, 1.0, prediction_changes=0.1, num_examples=10),
    ]
    assert means(reports) == pytest.approx({"prediction-changes": 0.4})


def test_clients_that_do_not_report_a_number_do_not_count_in_it() -> None:
    """At its first visit a client has nothing to compare its predictions with."""
    reports = [_report(90, 1.0), _report(10, 1.0, prediction_changes=0.25), _report(10, 1.0, prediction_changes=0.75)]
    assert means(reports) == {"prediction-changes": 0.5}
    assert means(reports[:1]) == means([]) == spreads([]) == {}
    assert set(spreads(reports)) == {"train-loss-percentiles", "train-loss-worst-tenth"}


@pytest.mark.parametrize("odd", [math.nan, math.inf, None, "1", [1.0]])
def test_what_is_no_finite_number_is_left_out(odd: Any) -> None:
    reports = [_report(1, 1.0, agreement_after=odd), _report(1, odd, agreement_after=0.5)]
    assert summary(reports) == {
        "agreement-after": 0.5,
        "agreement-after-percentiles": [0.5] * 5, "agreement-after-worst-tenth": 0.5,
        "train-loss-percentiles": [1.0] * 5, "train-loss-worst-tenth": 1.0,
    }  # fmt: skip


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.randoms())
def test_no_order_of_clients_changes_anything(values: list[float], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    assert percentiles(shuffled) == percentiles(values)
    assert worst_tenth(shuffled, True) == worst_tenth(values, True)
    assert worst_tenth(values, False) <= np.mean(values) + 1e-12
    assert percentiles(values) == sorted(percentiles(values))
