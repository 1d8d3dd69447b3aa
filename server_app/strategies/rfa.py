"""RFA (Pillutla et al., IEEE TSP 2022, arXiv 1912.13445): the geometric median, by the smoothed Weiszfeld algorithm.

    minimise over v: sum_k alpha_k ||v - w_k||,    alpha_k = n_k / sum n
    v_0 = sum_k alpha_k w_k;  beta_k = alpha_k / max(nu, ||v - w_k||),  v <- sum_k beta_k w_k / sum_k beta_k

The norm is that of all parameters together; BatchNorm's statistics take the parameters' weights and do not count in
the distance. Each v is a weighted mean of replies, so its distances follow from those between replies, and the models
are read only twice, however many iterations there are. FNBench takes an unweighted median per tensor.
"""

from dataclasses import dataclass

import numpy as np

from config.parameters import parameter
from config.rules import at_least, interval
from server_app.strategies.collecting import Floats, HeldReplies, HoldingStrategy, Rule


@dataclass(kw_only=True, eq=False)
class RFA(HoldingStrategy):
    """Geometric median.

    Attributes:
        iterations: Upper limit; the paper finds 3 sufficient.
        nu: Smoothing: smaller distances count as this one.
        tolerance: Stop when the objective falls by less than this share.
    """

    iterations: int = parameter(4, at_least(1))
    nu: float = parameter(1e-5, interval(0, float("inf"), open_low=True))
    tolerance: float = parameter(1e-6, interval(0, 1))

    def rule(self, held: HeldReplies) -> Rule:
        weights = self.weights(held.squared_distances(), held.examples)
        return lambda block: weights @ block

    def weights(self, squared_distances: Floats, examples: Floats) -> Floats:
        """(replies,) with sum 1: the geometric median as a weighted mean of the replies."""
        alpha: Floats = examples / examples.sum()
        weights, before = alpha, float("inf")
        for _ in range(self.iterations):
            distances = distances_of_a_mean(squared_distances, weights)
            objective = float(alpha @ distances)
            if before - objective < self.tolerance * objective:
                break
            before = objective
            beta = alpha / np.maximum(self.nu, distances)
            weights = np.divide(beta, beta.sum())
        return weights


def distances_of_a_mean(squared_distances: Floats, weights: Floats) -> Floats:
    """``||v - w_k||`` for ``v = sum_j c_j w_j``, where the weights c have sum 1.

    With ``D_jk = ||w_j - w_k||^2``: ``||v - w_k||^2 = sum_j c_j D_jk - 1/2 sum_ij c_i c_j D_ij``.
    """
    to_each = squared_distances @ weights
    distances: Floats = np.sqrt(np.maximum(to_each - weights @ to_each / 2, 0))
    return distances
