"""Class centroids of features that clients share, for `robustfl` and `dualoptim`.

A client gets those that the server knows. What it sends back after training says which classes it is about. The server
merges that class by class, over the clients that say something of the class:

    c <- sum_k s_k c_k / sum_k s_k,    s_k = max(cos(c, c_k), 0)

A class that is new to it, or whose s_k are below `SIMILAR` on average, gets their plain mean. Published code, where s_k
may be negative and the first c is random, divides by sums near 0, which blows centroids up.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from learning.schema import Floats, Number

# What travels beside the weights, both ways.
CENTROIDS = "centroids"  # (C, d) float32, 0 where a class is not known
KNOWN = "known"  # (C,) float32, 1 for a class whose centroid is known, else 0

LARGEST_FEATURE = 1e6  # squares of thousands of them are still finite in float32, so that no client can spoil others
LONGEST = 2.0  # times the median length, see `shortened`; so that one of five cannot outweigh the others
SIMILAR = 0.1  # a cosine below it says that a centroid points elsewhere


def centroids_sent(classes: int, width: int) -> dict[str, Floats]:
    """What `Method.sends` announces: the centroids of so many classes and features."""
    feature, flag = Number(-LARGEST_FEATURE, LARGEST_FEATURE), Number(0, 1, whole=True)
    return {CENTROIDS: Floats((classes, width), feature), KNOWN: Floats((classes,), flag)}


def class_means(features: Tensor, labels: Tensor, num_classes: int, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """The mean of features (n, d) by labels (n,), as (C, d) of their dtype, 0 without images.

    And which classes have at least `fewest` of them, (C,) bool.
    """
    # A product instead of a scattered sum, whose order, and so its last bits, a GPU leaves to chance.
    members = torch.zeros(len(labels), num_classes, dtype=features.dtype, device=labels.device)
    members.scatter_(1, labels[:, None], 1.0)
    counts = members.sum(dim=0)
    return members.T @ features / counts.clamp(min=1)[:, None], counts >= fewest


class GlobalCentroids:
    """The centroids that a server half knows.

    Attributes:
        centroids: (C, d) float32; None before any came.
        known: (C,) bool, which of them there are; None likewise.
    """

    def __init__(self) -> None:
        self.centroids: np.ndarray | None = None
        self.known: np.ndarray | None = None

    def told(self) -> dict[str, np.ndarray]:
        """For `ServerHalf.tell_arrays`; empty before any came."""
        if self.centroids is None or self.known is None:
            return {}
        return {CENTROIDS: self.centroids, KNOWN: self.known.astype(np.float32)}

    def heard(self, arrays: Mapping[int, Mapping[str, np.ndarray]], *, shorten: bool = False) -> None:
        """Merge what clients sent, by partition; `shorten` says whether `shortened` comes first."""
        sent = [arrays[partition] for partition in sorted(arrays)]  # whatever order they came in
        found = np.stack([one[CENTROIDS] for one in sent])
        held = np.stack([one[KNOWN] for one in sent]) > 0
        before = np.zeros_like(found[0]) if self.centroids is None else self.centroids
        known = np.zeros_like(held[0]) if self.known is None else self.known
        if shorten:
            found = shortened(before, known, found, held)
        self.centroids, self.known = merged(before, known, found, held), known | held.any(axis=0)

    def state(self) -> dict[str, np.ndarray]:
        """For `ServerHalf.state`."""
        if self.centroids is None or self.known is None:
            return {}
        return {CENTROIDS: self.centroids, KNOWN: self.known}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned; others may have put more into it."""
        self.centroids, self.known = state.get(CENTROIDS), state.get(KNOWN)


def merged(before: np.ndarray, known: np.ndarray, found: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The new global centroids, (C, d) float32.

    Args:
        before: (C, d), the global ones.
        known: (C,) bool, which of these there are.
        found: (clients, C, d), the clients' own.
        held: (clients, C) bool, which of these there are. A class that none has stays as it was.
    """
    exact, old = found.astype(np.float64), before.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=2) * np.linalg.norm(old, axis=1)
    cosines = (exact * old).sum(axis=2) / np.where(lengths > 0, lengths, 1.0)
    similar = np.maximum(cosines, 0.0) * held
    holders = held.sum(axis=0)
    follow = known & (similar.sum(axis=0) >= SIMILAR * holders)
    weights = np.where(follow, similar, held)
    total = weights.sum(axis=0)
    means = (weights[:, :, None] * exact).sum(axis=0) / np.where(total > 0, total, 1.0)[:, None]
    return np.where(holders[:, None] > 0, means, old).astype(np.float32)


def shortened(before: np.ndarray, known: np.ndarray, found: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The clients' centroids, (clients, C, d) float64, none of them much longer than most of its class.

    Clients train towards centroids: one of any length that a single client made up could end all others' training. So
    it is cut down to `LONGEST` times the median length of those that the clients have, and the global one, if there is.
    Of two medians the lower one counts, and centroids of length 0 do not.

    Args:
        before: As in `merged`, as are the others.
        known: See there.
        found: See there.
        held: See there.
    """
    exact = found.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=2)
    old = np.linalg.norm(before.astype(np.float64), axis=1)[None]
    counted = np.concatenate([np.where(held, lengths, 0.0), old * known])
    ordered = np.sort(np.where(counted > 0, counted, np.inf), axis=0)
    middle = np.maximum((counted > 0).sum(axis=0) - 1, 0) // 2
    limits = LONGEST * np.take_along_axis(ordered, middle[None], axis=0)
    factors = np.minimum(limits / np.where(lengths > 0, lengths, 1.0), 1.0)
    cut: np.ndarray = exact * factors[:, :, None]
    return cut
