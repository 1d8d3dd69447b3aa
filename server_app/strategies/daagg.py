"""DaAgg, the aggregation of FedNoRo (Wu et al., IJCAI 2023, arXiv 2305.05230): distant noisy clients count less.

    d_k = min over clean clients c of dist(w_k, w_c) for a noisy client, 0 for a clean one;  D_k = d_k / max_j d_j
    alpha_k = n_k exp(-D_k) / sum_j n_j exp(-D_j);  w_{t+1} = sum_k alpha_k w_k

A client that was found noisy reports it with a metric ``noisy`` of 1; clients without it are clean. If no client or
every client is noisy, or all noisy models equal a clean one, this is FedAvg. The most distant noisy client always gets
the factor 1/e, and so does a single one, however close it is.

The paper speaks of the distance between models. The authors' code, and FNBench's after it, adds up the norms of the
tensors, including BatchNorm's running statistics; published numbers come from it, so that is the default (`distance`
"tensors"). "model" is the norm over all parameters as one vector, without BatchNorm's statistics, as in the other
strategies here: running variances can be so large that they alone decide which client is far away.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.parameters import parameter
from config.rules import one_of
from server_app.strategies.batchnorm import is_counter, is_parameter
from server_app.strategies.collecting import Floats, HeldReplies, HoldingStrategy, Rule, blocks

Bools = npt.NDArray[np.bool_]


@dataclass(kw_only=True, eq=False)
class DaAgg(HoldingStrategy):
    """A mean in which a noisy client weighs less the farther it is from the clean ones.

    Attributes:
        distance: "tensors", the sum of the tensors' norms, or "model", the norm over all parameters.
    """

    by_number = False

    distance: str = parameter("tensors", one_of("tensors", "model"))

    def rule(self, held: HeldReplies) -> Rule:
        weights = self.weights(held)
        return lambda block: weights @ block

    def weights(self, held: HeldReplies) -> Floats:
        """alpha: (replies,) of sum 1, all above 0.

        Raises:
            ValueError: A reply's ``noisy`` is neither 0 nor 1.
        """
        weights: Floats = held.examples.copy()
        noisy = noisy_replies(held)
        if noisy.any() and not noisy.all():
            nearest = distances_to_clean(held, noisy, by_tensor=self.distance == "tensors").min(axis=1)
            if nearest.max() > 0:
                weights[noisy] *= np.exp(-nearest / nearest.max())
        weights /= weights.sum()
        return weights


def noisy_replies(held: HeldReplies) -> Bools:
    """Which replies have a metric ``noisy`` of 1: (replies,) bool."""
    flags = [metrics.get("noisy", 0) for metrics in held.metrics]
    for flag in flags:
        if flag not in (0, 1):
            raise ValueError(f"noisy is {flag!r}; daagg needs 0 or 1 from every client")
    return np.array(flags, dtype=bool)


def distances_to_clean(held: HeldReplies, noisy: Bools, *, by_tensor: bool) -> Floats:
    """dist(w_k, w_c) as (noisy replies, clean replies) float64."""
    total = np.zeros((int(noisy.sum()), int((~noisy).sum())))
    for name, stack in held.tensors():
        if is_counter(name, stack.dtype) or not (by_tensor or is_parameter(name, stack.dtype)):
            continue
        squares = np.zeros_like(total)
        for block in blocks(stack):
            exact = block.astype(np.float64)
            for i, index in enumerate(np.flatnonzero(noisy)):
                differences = exact[~noisy]
                differences -= exact[index]
                squares[i] += np.einsum("ij,ij->i", differences, differences)
        total += np.sqrt(squares) if by_tensor else squares
    return total if by_tensor else np.sqrt(total)
