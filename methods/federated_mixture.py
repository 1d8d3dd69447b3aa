"""One mixture of two Gaussians for the losses of all clients, of which each sends six numbers (FedDiv).

A client fits means, deviations and weights (mu, sigma, pi) to the losses of its images, and starts from the server's.
The server keeps the last ones of each client, with n_k, how many images that holds, and averages them:

    mu_g = sum_k n_k mu_kg / n,   sigma_g = sum_k n_k sigma_kg / n,   pi_g = sum_k n_k pi_kg / n,   n = sum_k n_k

g = 1 is the Gaussian with the lower mean at every client. So components must mean the same everywhere: losses are in
nats, whoever has them, and not scaled to [0, 1] client by client. They are cut off at `LARGEST_LOSS`, and deviations
have a floor, that of DivideMix for losses from 0 to 1, scaled alike. So whatever one client sends, it moves the mean by
no more than its share of the images.

Nothing of single images is sent. A client with fewer than `FEWEST` images, or whose losses are all equal or not finite,
sends nothing of all this, and what it sent before stays.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from learning.mixture import Floats, Mixture, fit_mixture
from learning.schema import Number, Numbers, Schema
from learning.server_half import Told

MIXTURE = "mixture"  # what the server tells: six numbers as `Mixture.numbers` has them; absent before it has any
# The metrics that clients send: two numbers each, the Gaussian with the lower mean first.
MEANS, DEVIATIONS, WEIGHTS = "mixture-means", "mixture-deviations", "mixture-weights"
SENT = (MEANS, DEVIATIONS, WEIGHTS)

LARGEST_LOSS = 10.0  # nats, of a label that has 0.005 % of the probability: the network is sure enough of another one
FLOOR = 5e-4 * LARGEST_LOSS**2  # of variances
LEAST_DEVIATION = math.sqrt(FLOOR)
LARGEST_DEVIATION = math.sqrt(LARGEST_LOSS**2 / 4 + FLOOR) + 1e-9  # half of the losses 0, half the largest
LEAST_WEIGHT = 1e-6  # its logarithm is finite
FEWEST = 10  # images that two Gaussians are fitted to; they have five parameters
ITERATIONS = 10  # of the fit at most, as in the authors' code

RANGES = {
    MEANS: Number(0, LARGEST_LOSS),
    DEVIATIONS: Number(LEAST_DEVIATION, LARGEST_DEVIATION),
    WEIGHTS: Number(0, 1),
}
REPORTED: Schema = {name: Numbers(each, 2, needed=False) for name, each in RANGES.items()}


def bounded_losses(logits: Tensor, labels: Tensor) -> Floats:
    """(n,) float64 on the CPU, from 0 to `LARGEST_LOSS`, or NaN: cross-entropy of (n, C) logits; waits for the device.

    A client must not take part with losses that are not finite, see `fitted`.
    """
    losses: Floats = cross_entropy(logits, labels, reduction="none").double().cpu().numpy()
    return np.clip(losses, 0.0, LARGEST_LOSS)


def fitted(losses: Floats, start: Mixture | None) -> Mixture | None:
    """A client's own mixture of (n,) losses; None where there is nothing to fit.

    Args:
        losses: As `bounded_losses` gives them.
        start: The server's; None starts from the best division of the losses in two.
    """
    if len(losses) < FEWEST or not np.isfinite(losses).all() or losses.min() == losses.max():
        return None
    return fit_mixture(losses, ITERATIONS, floor=FLOOR, start=start)


def as_metrics(mixture: Mixture) -> dict[str, float | list[float]]:
    """What a client sends, within `RANGES` even if rounding says otherwise."""
    pairs = np.array(mixture.numbers).reshape(3, 2)
    return {
        name: np.clip(pair, RANGES[name].low, RANGES[name].high).tolist()
        for name, pair in zip(SENT, pairs, strict=True)
    }


def mixture_told(told: Mapping[str, Told]) -> Mixture | None:
    """The server's mixture, as it told it."""
    numbers = told.get(MIXTURE)
    return Mixture.of(numbers) if isinstance(numbers, list) else None


class FederatedMixture:
    """The server's side: the last mixture of each client, and their mean."""

    def __init__(self) -> None:
        self._images: dict[int, int] = {}  # n_k by partition
        self._numbers: dict[int, Floats] = {}  # (6,) by partition

    def hear(self, partition: int, images: int, metrics: Mapping[str, Any]) -> None:
        """Take what one client sent, if it sent all of it.

        Args:
            partition: The client's.
            images: n_k, at least 1.
            metrics: Within `REPORTED`, and otherwise whatever a client may come up with.
        """
        if all(name in metrics for name in SENT):
            self._images[partition] = images
            self._numbers[partition] = in_order(*(np.array(metrics[name], dtype=np.float64) for name in SENT))

    def __len__(self) -> int:
        """How many clients have sent any."""
        return len(self._numbers)

    @property
    def mean(self) -> Mixture | None:
        """W; None before any client sent its numbers."""
        if not self._numbers:
            return None
        partitions = sorted(self._numbers)  # whatever order they came in
        images = np.array([self._images[partition] for partition in partitions], dtype=np.float64)
        numbers = np.stack([self._numbers[partition] for partition in partitions])
        return Mixture.of((images[:, None] * numbers).sum(axis=0) / images.sum())

    def state(self) -> dict[str, np.ndarray]:
        """For checkpoints."""
        partitions = sorted(self._numbers)
        if not partitions:
            return {}
        return {
            "mixture-clients": np.array(partitions, dtype=np.int64),
            "mixture-images": np.array([self._images[partition] for partition in partitions], dtype=np.int64),
            "mixture-numbers": np.stack([self._numbers[partition] for partition in partitions]),
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned, if it is in there."""
        partitions = state["mixture-clients"].tolist() if "mixture-clients" in state else []
        self._images = dict(zip(partitions, state["mixture-images"].tolist(), strict=True)) if partitions else {}
        self._numbers = dict(zip(partitions, state["mixture-numbers"], strict=True)) if partitions else {}


def in_order(means: Floats, deviations: Floats, weights: Floats) -> Floats:
    """(6,) with the lower mean first and weights that add up to 1, none of them 0; from (2,) each, within `RANGES`."""
    order = np.argsort(means, kind="stable")
    weights = weights + LEAST_WEIGHT
    return np.concatenate([means[order], deviations[order], (weights / weights.sum())[order]])
