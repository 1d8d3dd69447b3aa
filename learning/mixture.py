"""A mixture of two Gaussians on a line, which tells small losses from large ones; fitted by expectation-maximisation.

    r_ik = w_k N(x_i; m_k, v_k) / sum_j w_j N(x_i; m_j, v_j)
    n_k = sum_i r_ik,   w_k = n_k / n,   m_k = sum_i r_ik x_i / n_k,   v_k = sum_i r_ik (x_i - m_k)^2 / n_k + floor

scikit-learn does the same from a random start, after a second of importing. Here the start is the best division of the
sorted numbers in two, that of 2-means, which on a line can be found exactly: equal numbers give equal mixtures. Or it
is another mixture, such as one of more numbers than these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TINY = 10 * np.finfo(np.float64).eps  # of an image, so that a group without any has a mean


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians, that with the lower mean first.

    Attributes:
        means: (2,).
        variances: (2,).
        weights: (2,), shares of the numbers; they add up to 1.
    """

    means: Floats
    variances: Floats
    weights: Floats

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Mixture":
        """The mixture with these six `numbers`; the deviations and weights above 0."""
        means, deviations, weights = np.array(numbers, dtype=np.float64).reshape(3, 2)
        return cls(means, deviations**2, weights)

    @property
    def numbers(self) -> list[float]:
        """All six: both means, both deviations, both weights."""
        return [*self.means.tolist(), *np.sqrt(self.variances).tolist(), *self.weights.tolist()]

    def lower(self, values: Floats) -> Floats:
        """(n,) float64, the probability that each of (n,) numbers comes from the Gaussian with the lower mean.

        It need not fall with the number: a wide Gaussian may have more of the smallest as well.
        """
        log_densities = self._log_densities(values)
        lower: Floats = np.exp(log_densities[:, 0] - np.logaddexp.reduce(log_densities, axis=1))
        return lower

    def is_upper(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Which of (n,) numbers rather come from the upper Gaussian, (n,) bool; none below the lower mean."""
        found: npt.NDArray[np.bool_] = (self.lower(values) < 0.5) & (values > self.means[0])
        return found

    def log_likelihood(self, values: Floats) -> float:
        """Mean log density of (n,) numbers."""
        return float(np.logaddexp.reduce(self._log_densities(values), axis=1).mean())

    def _log_densities(self, values: Floats) -> Floats:
        """(n, 2), those of each Gaussian and its weight."""
        squares = (values[:, None] - self.means) ** 2 / self.variances
        logs: Floats = np.log(self.weights) - (squares + np.log(2 * np.pi * self.variances)) / 2
        return logs


def fit_mixture(
    values: Floats,
    iterations: int = 100,
    tolerance: float = 1e-2,
    floor: float = 5e-4,
    start: Mixture | None = None,
) -> Mixture:
    """Fit two Gaussians; the defaults are DivideMix's.

    Args:
        values: (n,) finite numbers, at least two of which differ; the floor is meant for numbers from 0 to 1.
        iterations: At most so many.
        tolerance: It ends when the mean log likelihood changes by less.
        floor: Added to variances, so that no Gaussian shrinks to a point.
        start: Where it starts instead of from a division. Then a Gaussian to which less than one number belongs, all
            its shares of them added up, keeps its mean and variance: so little says nothing about them.
    """
    values = np.asarray(values, dtype=np.float64)
    mixture = start or _fitted(values, divide(values).astype(np.float64), floor)
    before = -np.inf
    for _ in range(iterations):
        likelihood = mixture.log_likelihood(values)
        mixture = _fitted(values, mixture.lower(values), floor, mixture if start else None)
        if abs(likelihood - before) < tolerance:
            break
        before = likelihood
    order = np.argsort(mixture.means, kind="stable")
    return Mixture(mixture.means[order], mixture.variances[order], mixture.weights[order])


def divide(values: Floats) -> npt.NDArray[np.bool_]:
    """The lower of the two groups that lie closest to their means: (n,) bool, for (n,) numbers that are not all equal.

    With k numbers below, the squared distances add up to the least where ``s_k^2 / k + (s - s_k)^2 / (n - k)`` is
    largest, s_k the sum of the k lowest and s that of all.
    """
    count = len(values)
    ordered = np.sort(values)
    centred = ordered - ordered.mean()  # sums of squares lose digits otherwise
    below = np.arange(1, count)
    sums = np.cumsum(centred)[:-1]
    between = sums**2 / below + sums**2 / (count - below)  # the sums of all are 0
    between[ordered[1:] == ordered[:-1]] = -1.0  # equal numbers stay together
    lowest: npt.NDArray[np.bool_] = values <= ordered[between.argmax()]
    return lowest


def _fitted(values: Floats, low: Floats, floor: float, last: Mixture | None = None) -> Mixture:
    """The Gaussians of numbers that belong to the first with these probabilities, (n,).

    If there is a `last` mixture, Gaussians to which less than one number belongs are as in that one.
    """
    shares = np.stack([low, 1 - low], axis=1)
    counts = shares.sum(axis=0) + TINY
    means = values @ shares / counts
    variances = ((values[:, None] - means) ** 2 * shares).sum(axis=0) / counts + floor
    if last is not None:
        means, variances = np.where(counts < 1, (last.means, last.variances), (means, variances))
    return Mixture(means, variances, counts / counts.sum())
