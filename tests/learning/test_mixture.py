"""Two Gaussians on a line: a worked example, scikit-learn's numbers, and any others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from learning.mixture import Mixture, divide, fit_mixture

LOSSES = np.array([0.05, 0.1, 0.12, 0.2, 0.3, 1.8, 2.1, 2.4])
SCALED = (LOSSES - 0.05) / 2.35


def test_the_worked_example() -> None:
    assert pytest.approx([0, 0.021277, 0.029787, 0.063830, 0.106383, 0.744681, 0.872340, 1], abs=1e-6) == SCALED
    mixture = fit_mixture(SCALED)
    assert mixture.means == pytest.approx([0.044255, 0.872340], abs=1e-5)
    assert mixture.weights == pytest.approx([5 / 8, 3 / 8], abs=1e-5)
    assert mixture.variances == pytest.approx([SCALED[:5].var() + 5e-4, SCALED[5:].var() + 5e-4], abs=1e-5)
    assert mixture.lower(SCALED) == pytest.approx([1] * 5 + [0] * 3, abs=1e-5)


def test_one_step_by_hand() -> None:
    """Of 0, 0 and 1, divided {0, 0} and {1}: variances are the floor, and 1 / 2 is as near to both means."""
    mixture = fit_mixture(np.array([0.0, 0.0, 1.0]), iterations=0, floor=0.25)
    assert mixture.means == pytest.approx([0, 1])
    assert mixture.variances == pytest.approx([0.25, 0.25])
    assert mixture.lower(np.array([0.5])) == pytest.approx([2 / 3])  # of equal densities the weights are left
    # log(2/3 N(0) + 1/3 N(1)) with N(d) = exp(-2 d^2) / sqrt(pi / 2)
    likelihood = (2 * np.log(2 / 3 + np.exp(-2) / 3) + np.log(2 / 3 * np.exp(-2) + 1 / 3)) / 3 - np.log(np.pi / 2) / 2
    assert mixture.log_likelihood(np.array([0.0, 0.0, 1.0])) == pytest.approx(likelihood)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # after one iteration
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iterations", [1, 10, 100])
def test_it_is_scikit_learns_from_the_same_start(seed: int, iterations: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.gamma(1.0, 0.08, 300), rng.normal(0.6, 0.15, 120)])
    values = (values - values.min()) / np.ptp(values)
    ours = fit_mixture(values, iterations)
    low = divide(values)
    start = np.array([values[low].mean(), values[~low].mean()])
    variances = np.array([values[low].var(), values[~low].var()]) + 5e-4
    theirs = GaussianMixture(
        2, max_iter=iterations, tol=1e-2, reg_covar=5e-4, means_init=start[:, None],
        weights_init=[low.mean(), 1 - low.mean()], precisions_init=(1 / variances)[:, None, None],
    )  # fmt: skip
    theirs.fit(values[:, None])
    assert ours.means == pytest.approx(theirs.means_.ravel(), abs=1e-6)
    assert ours.variances == pytest.approx(theirs.covariances_.ravel(), abs=1e-6)
    assert ours.lower(values) == pytest.approx(theirs.predict_proba(values[:, None])[:, 0], abs=1e-6)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda some: len(set(some)) > 1))
def test_the_start_is_the_best_division_of_all(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=np.float64)
    low = divide(values)
    assert low.any()
    assert not low.all()
    assert values[low].max() < values[~low].min()

    def spread(below: np.ndarray) -> float:
        return sum(len(part) * part.var() for part in (values[below], values[~below]))

    best = min(spread(values <= cut) for cut in sorted(set(numbers))[:-1])
    assert spread(low) == pytest.approx(best, rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40).filter(lambda some: max(some) - min(some) > 1e-6))
def test_any_numbers_give_finite_probabilities_in_any_order(numbers: list[float]) -> None:
    values = np.array(numbers)
    mixture = fit_mixture(values)
    lower = mixture.lower(values)
    assert np.isfinite(lower).all()
    assert ((lower >= 0) & (lower <= 1 + 1e-12)).all()
    assert mixture.means[0] <= mixture.means[1]
    assert mixture.weights.sum() == pytest.approx(1)
    assert (mixture.variances >= 5e-4).all()
    assert fit_mixture(values[::-1]).lower(values) == pytest.approx(lower, abs=1e-6)


def test_two_numbers_and_a_million() -> None:
    assert fit_mixture(np.array([1.0, 0.0])).lower(np.array([1.0, 0.0])) == pytest.approx([0, 1], abs=1e-6)
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 0.03, 600_000), rng.normal(0.7, 0.1, 400_000)])
    mixture = fit_mixture(values)
    assert mixture.means == pytest.approx([0.1, 0.7], abs=1e-3)
    assert mixture.weights == pytest.approx([0.6, 0.4], abs=1e-3)


NUMBERS = [0.0, 4.0, 1.0, 1.0, 0.5, 0.5]


def test_one_step_from_a_given_start_by_hand() -> None:
    """Of 0, 1 and 4: odds of N(0, 1) to N(4, 1) are exp(8 - 4 x), so shares are s(8), s(4) and s(-8), s the sigmoid."""
    shares = np.array([0.9996646499, 0.9820137900, 0.0003353501])
    count, values = 1.98201379, np.array([0.0, 1.0, 4.0])
    low = (0.98201379 + 4 * 0.0003353501) / count
    high = (0.01798621 + 4 * 0.9996646499) / 1.01798621
    found = fit_mixture(values, iterations=1, floor=0.25, start=Mixture.of(NUMBERS))
    assert found.means == pytest.approx([low, high], abs=1e-7)
    assert found.weights == pytest.approx([count / 3, 1.01798621 / 3], abs=1e-7)
    assert found.variances == pytest.approx(
        [
            (shares * (values - low) ** 2).sum() / count + 0.25,
            ((1 - shares) * (values - high) ** 2).sum() / 1.01798621 + 0.25,
        ],
        abs=1e-7,
    )


def test_a_gaussian_that_gets_next_to_nothing_stays_where_it_was() -> None:
    """Otherwise numbers that are all low would pull it down to 0, or to one outlier."""
    values = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    found = fit_mixture(values, 10, floor=0.01, start=Mixture.of(NUMBERS))
    assert found.means == pytest.approx([0, 4], abs=1e-3)
    assert found.variances == pytest.approx([0.02 + 0.01, 1], abs=1e-3)
    assert found.weights == pytest.approx([1, 0], abs=1e-3)
    assert np.isfinite(found.lower(np.array([-1e3, 0.0, 4.0, 1e3]))).all()
    far = fit_mixture(values - 1e3, 10, floor=0.01, start=Mixture.of(NUMBERS))
    assert far.means == pytest.approx([-1000, 4])


def test_no_step_leaves_the_start() -> None:
    start = Mixture.of(NUMBERS)
    assert fit_mixture(np.array([0.0, 1.0]), iterations=0, start=start).numbers == start.numbers == NUMBERS


def test_components_that_change_places_are_put_in_order() -> None:
    start = Mixture.of([4.0, 0.0, 1.0, 1.0, 0.5, 0.5])
    found = fit_mixture(np.array([0.0, 0.0, 4.0, 4.1]), 5, floor=0.01, start=start)
    assert found.means == pytest.approx([0, 4.05], abs=1e-3)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=40),
    st.tuples(*[st.floats(0, 10)] * 2, *[st.floats(0.1, 5)] * 2, *[st.floats(1e-6, 1)] * 2),
)
def test_any_numbers_from_any_start_give_a_mixture(numbers: list[float], start: tuple[float, ...]) -> None:
    """Also numbers that are all equal."""
    values = np.array(numbers)
    mixture = fit_mixture(values, 10, floor=0.01, start=Mixture.of(start))
    assert np.isfinite(mixture.numbers).all()
    assert np.isfinite(mixture.lower(values)).all()
    assert mixture.means[0] <= mixture.means[1]
    assert mixture.weights.sum() == pytest.approx(1)
    assert ((mixture.means >= -1e-9) & (mixture.means <= 10 + 1e-9)).all()
    assert mixture.variances.min() >= 0.01
    again = Mixture.of(mixture.numbers)
    assert again.numbers == pytest.approx(mixture.numbers, rel=1e-12)
