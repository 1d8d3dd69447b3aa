"""The mixture that clients share: what one of them sends, the mean by hand, and whatever a client may claim."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learning.mixture import Mixture
from learning.schema import problem_of
from methods.federated_mixture import (
    DEVIATIONS,
    LARGEST_LOSS,
    LEAST_DEVIATION,
    MEANS,
    MIXTURE,
    RANGES,
    REPORTED,
    WEIGHTS,
    FederatedMixture,
    as_metrics,
    bounded_losses,
    fitted,
    mixture_told,
)

ONE = {MEANS: [0.2, 3.0], DEVIATIONS: [0.3, 1.0], WEIGHTS: [0.9, 0.1]}
OTHER = {MEANS: [0.6, 5.0], DEVIATIONS: [0.5, 2.0], WEIGHTS: [0.5, 0.5]}
SMALL, LARGE = [0.05, 0.1, 0.12, 0.2, 0.3], [1.8, 2.1, 2.4]
LOSSES = np.array(2 * (SMALL + LARGE))


def _heard(*clients: tuple[int, int, dict[str, Any]]) -> FederatedMixture:
    mixture = FederatedMixture()
    for client in clients:
        mixture.hear(*client)
    return mixture


def _mean(mixture: FederatedMixture) -> list[float]:
    assert mixture.mean is not None
    return mixture.mean.numbers


def test_the_mean_by_hand() -> None:
    """100 and 300 images: a quarter and three quarters."""
    mean = _mean(_heard((4, 100, ONE), (2, 300, OTHER)))
    assert mean == pytest.approx([0.5, 4.5, 0.45, 1.75, 0.6, 0.4], abs=2e-6)


def test_a_posterior_by_hand() -> None:
    """0.6 N(0.5, 0.5) against 0.4 N(4, 1.5): at 1 it is 0.290365 to 0.014398, and at 2 0.005318 to 0.043736."""
    mixture = Mixture.of([0.5, 4.0, 0.5, 1.5, 0.6, 0.4])
    values = [0.2, 1.0, 2.0, 3.0]
    densities = [(0.6 * NormalDist(0.5, 0.5).pdf(x), 0.4 * NormalDist(4, 1.5).pdf(x)) for x in values]
    found = mixture.lower(np.array(values))
    assert found == pytest.approx([low / (low + high) for low, high in densities], rel=1e-9)
    assert found[1:3] == pytest.approx([0.952758, 0.108407], abs=1e-5)


def test_the_last_numbers_of_each_client_count_in_any_order() -> None:
    late = {**ONE, MEANS: [1.0, 2.0]}
    first = _heard((1, 10, ONE), (5, 70, OTHER), (1, 30, late))
    assert _mean(first) == _mean(_heard((1, 30, late), (5, 70, OTHER)))
    assert _mean(first)[:2] == pytest.approx([0.3 * 1 + 0.7 * 0.6, 0.3 * 2 + 0.7 * 5])
    assert len(first) == 2


def test_a_client_that_sends_none_or_a_part_leaves_what_it_sent_before() -> None:
    mixture = _heard((1, 10, ONE))
    for reply in ({}, {MEANS: [1.0, 2.0]}, {MEANS: [1.0, 2.0], WEIGHTS: [0.5, 0.5]}):
        mixture.hear(1, 500, reply)
        mixture.hear(2, 500, reply)
    assert _mean(mixture) == pytest.approx(_mean(_heard((1, 10, ONE))))
    assert FederatedMixture().mean is None


def test_means_in_the_wrong_order_are_put_right() -> None:
    turned = {name: list(reversed(pair)) for name, pair in ONE.items()}
    assert _mean(_heard((0, 9, turned))) == _mean(_heard((0, 9, ONE)))


def _pairs(name: str) -> Any:
    return st.lists(st.floats(RANGES[name].low, RANGES[name].high), min_size=2, max_size=2)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 2**40), _pairs(MEANS), _pairs(DEVIATIONS), _pairs(WEIGHTS)),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_clients_claim_the_mean_is_a_mixture(claims: list[Any]) -> None:
    mixture, other = FederatedMixture(), FederatedMixture()
    for partition, images, means, deviations, weights in claims:
        reply = {MEANS: means, DEVIATIONS: deviations, WEIGHTS: weights}
        assert problem_of(reply, REPORTED) is None
        mixture.hear(partition, images, reply)
    mean = mixture.mean
    assert mean is not None
    assert mean.means[0] <= mean.means[1] + 1e-9
    assert mean.weights.sum() == pytest.approx(1)
    assert (mean.weights > 0).all()
    assert mean.variances.min() >= LEAST_DEVIATION**2 * (1 - 1e-9)
    lower = mean.lower(np.linspace(0, LARGEST_LOSS, 50))
    assert np.isfinite(lower).all()
    other.load_state(mixture.state())
    assert other.mean is not None
    assert other.mean.numbers == mean.numbers  # bit for bit


@pytest.mark.parametrize(
    "claim",
    [
        {MEANS: [0.0, 10.0], DEVIATIONS: [LEAST_DEVIATION, 5.0], WEIGHTS: [0.0, 0.0]},
        {MEANS: [10.0, 10.0], DEVIATIONS: [5.0, 5.0], WEIGHTS: [0.0, 1.0]},
    ],
)
def test_one_client_moves_the_mean_by_its_share_of_the_images_at_most(claim: dict[str, Any]) -> None:
    honest = [(k, 100, ONE) for k in range(19)]
    before, after = (np.array(_mean(_heard(*honest, (19, 100, last)))) for last in (ONE, claim))
    assert (np.abs(after - before) <= np.array([10, 10, 5.1, 5.1, 1, 1]) / 20).all()


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ({**ONE, MEANS: [0.2, 10.1]}, "each must be a number from 0 to 10"),
        ({**ONE, MEANS: [float("nan"), 3.0]}, "each must be a number from 0 to 10"),
        ({**ONE, DEVIATIONS: [0.1, 1.0]}, "each must be a number from 0.2236067977"),
        ({**ONE, WEIGHTS: [0.5, 1.5]}, "each must be a number from 0 to 1"),
        ({**ONE, MEANS: [0.2] * 30}, "it must be a list of 2 numbers"),
    ],
)
def test_what_does_not_pass(reply: dict[str, Any], problem: str) -> None:
    assert problem in str(problem_of(reply, REPORTED))


def test_a_client_may_send_nothing_of_it() -> None:
    assert problem_of({}, REPORTED) is None


def test_losses_are_in_nats_and_cut_off() -> None:
    """Two classes: log(1 + exp(-d)) for logits (d, 0) and label 0."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-50.0, 0.0], [900.0, 0.0], [-math.inf, 0.0]])
    losses = bounded_losses(logits, torch.zeros(5, dtype=torch.int64))
    assert losses.dtype == np.float64
    assert losses == pytest.approx([math.log1p(math.exp(-2)), math.log(2), 10, 0, 10], abs=1e-6)
    assert np.isnan(bounded_losses(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))).all()


def test_two_groups_of_losses_by_hand() -> None:
    """Each is one Gaussian, but for the floor of variances; the division in two is where the fit begins, and ends."""
    found = fitted(LOSSES, None)
    assert found is not None
    small, large = np.array(SMALL), np.array(LARGE)
    assert found.means == pytest.approx([small.mean(), large.mean()], abs=1e-3)
    assert found.variances == pytest.approx([small.var() + 0.05, large.var() + 0.05], abs=1e-3)
    assert found.weights == pytest.approx([5 / 8, 3 / 8], abs=1e-3)
    assert as_metrics(found)[MEANS] == pytest.approx(found.means.tolist())


def test_a_fit_starts_from_the_servers_mixture() -> None:
    """A client without wrong labels has next to nothing in the upper Gaussian, which stays where the server had it."""
    clean = np.array(4 * SMALL)
    alone = fitted(clean, None)
    told = fitted(clean, Mixture.of([0.2, 3.0, 0.3, 1.0, 0.7, 0.3]))
    assert alone is not None
    assert told is not None
    assert alone.means[1] < 0.3
    assert told.means == pytest.approx([clean.mean(), 3.0], abs=1e-2)
    assert told.weights[1] < 0.05


@pytest.mark.parametrize(
    "losses",
    [[0.1] * 30, [0.1, 2.0] * 4 + [0.3], [0.1] * 20 + [math.nan], [0.5]],
    ids=["equal", "nine", "not finite", "one"],
)
def test_where_there_is_nothing_to_fit(losses: list[float]) -> None:
    assert fitted(np.array(losses), None) is None
    assert fitted(np.array(losses), Mixture.of([0.2, 3.0, 0.3, 1.0, 0.7, 0.3])) is None


@given(
    st.lists(st.floats(0, LARGEST_LOSS), min_size=10, max_size=40),
    st.none() | st.tuples(_pairs(MEANS).map(sorted), _pairs(DEVIATIONS)),
)
def test_what_a_client_sends_passes_and_has_six_numbers(losses: list[float], start: Any) -> None:
    told = None if start is None else Mixture.of([*start[0], *start[1], 0.5, 0.5])
    found = fitted(np.array(losses), told)
    if found is None:
        assert len(set(losses)) == 1
        return
    sent = as_metrics(found)
    assert problem_of(sent, REPORTED) is None
    assert [len(pair) for pair in sent.values() if isinstance(pair, list)] == [2, 2, 2]


def test_what_the_server_tells_is_what_a_client_reads() -> None:
    mean = _mean(_heard((4, 100, ONE), (2, 300, OTHER)))
    told = mixture_told({MIXTURE: mean})
    assert told is not None
    assert told.numbers == pytest.approx(mean, rel=1e-12)
    assert mixture_told({}) is None
