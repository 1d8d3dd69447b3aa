"""DualOptim: FedELC with class centroids that clients share (github.com/18sym/DualOptim, "Refining Distributed Noisy
Clients: An End-to-end Dual Optimization Framework").

Stages, detection, label logits and their step are FedELC's (`fedelc`). With F(x) what goes into the classifier, c_j the
centroid of class j and ``g = min(max over pairs |c_i - c_j|, 100)``, a noisy client's loss in stage 2 is

    L = -mean sum_c p log y_d / C + alpha L_o + lambda L_ctr,    alpha = 0.6, lambda = 0.4
    L_ctr = cross-entropy of the logits -(|F(x) - c_j| + [j = y] g) against y

The first term is FedELC's (L_c + beta L_e) / C with beta = 1, since KL(p || y_d) plus the entropy of p is that
cross-entropy. g is a margin: an image must be nearer to its own class than to any other by that much.

Centroids (`methods.centroids`) are float32 arrays beside the weights, and only noisy clients exchange them, in stage 2.
A client gets those that the server knows. Of classes that it holds and the server does not know, at first all, it takes
the mean features under the model as received; of the others it knows nothing, and they are no part of L_ctr. After
training it sends the mean features of the classes that it holds, by given label, and which these are. The server merges
them as RobustFL does.

The authors' code detaches the features, so that L_ctr changes nothing; here it has its gradient. It gives classes that
a client lacks a random centroid, which says nothing and is averaged with the others; adds up sums of features over
epochs without dividing anew; keeps centroids in float16; merges them by weights that may be negative; and takes the
square root of squared distances that rounding can make negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Told, Visit
from learning.schema import Floats
from methods.centroids import CENTROIDS, KNOWN, GlobalCentroids, centroids_sent, class_means
from methods.fedelc import FedELC
from methods.logit_adjustment import shares
from methods.two_stages import TwoStagesOnServer, learns_as_noisy

LARGEST_MARGIN = 100.0


@dataclass(frozen=True)
class DualOptim(FedELC):
    """DualOptim; what is not said here is as in `FedELC`.

    Attributes:
        beta: 1 gives the authors' loss, see above.
        centre: lambda, the weight of L_ctr; at least 0.
    """

    alpha: float = parameter(0.6, interval(0))
    beta: float = parameter(1.0, interval(0))
    centre: float = parameter(0.4, interval(0))

    features: ClassVar[bool] = True

    def begin(self, visit: Visit) -> None:
        super().begin(visit)
        if learns_as_noisy(visit.told):
            centroids, known = centroids_for(visit)
            visit.scratch[CENTROIDS], visit.scratch[KNOWN] = centroids, known
            visit.scratch["margin"] = margin_of(centroids, known)

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        loss = super().loss(batch, visit)
        if CENTROIDS not in visit.scratch:
            return loss
        features = batch.views[0][0].features
        assert features is not None
        known, margin = visit.scratch[KNOWN], visit.scratch["margin"]
        return loss + self.centre * centre_loss(features, batch.labels, visit.scratch[CENTROIDS], known, margin)

    def end(self, visit: Visit) -> None:
        super().end(visit)
        if CENTROIDS in visit.scratch:
            means, held = class_means(visit.features(), visit.labels, visit.num_classes)
            visit.sends = {CENTROIDS: means, KNOWN: held.float()}

    def sends(self, told: Mapping[str, Told], classes: int, width: int) -> Mapping[str, Floats]:
        """The centroids of a client that learns as noisy."""
        return centroids_sent(classes, width) if learns_as_noisy(told) else {}

    def on_server(self) -> "DualOptimOnServer":
        return DualOptimOnServer(self)


def centroids_for(visit: Visit) -> tuple[Tensor, Tensor]:
    """The centroids (C, d) float32 for a visit and which of them are known, (C,) bool.

    It waits for the device once, and may look at all images.
    """
    held = shares(visit.labels, visit.num_classes) > 0
    if CENTROIDS not in visit.received:
        return class_means(visit.features(), visit.labels, visit.num_classes)
    centroids, known = visit.received[CENTROIDS], visit.received[KNOWN] > 0
    if bool((held & ~known).any()):
        own, _ = class_means(visit.features(), visit.labels, visit.num_classes)
        centroids = torch.where(known[:, None], centroids, own)
    return centroids, known | held


def margin_of(centroids: Tensor, known: Tensor) -> Tensor:
    """g: a scalar, from centroids (C, d) of which those `known` (C,) count; 0 if that is one."""
    distances = distances_between(centroids, centroids) * known * known[:, None]
    return distances.max().clamp(max=LARGEST_MARGIN)


def centre_loss(features: Tensor, labels: Tensor, centroids: Tensor, known: Tensor, margin: Tensor) -> Tensor:
    """L_ctr: a scalar, the mean over the batch.

    Args:
        features: (batch, d), with gradients.
        labels: (batch,) int64, of classes that are known.
        centroids: (C, d).
        known: (C,) bool.
        margin: g, a scalar.
    """
    distances = distances_between(features, centroids)
    distances = distances.scatter_add(1, labels[:, None], margin.to(distances.dtype).expand(len(labels), 1))
    return cross_entropy((-distances).masked_fill(~known, -torch.inf), labels)


def distances_between(some: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances of (n, d) and (m, d) as (n, m); where one is 0, so is its gradient."""
    # From differences: |x|^2 - 2xy + |y|^2 may fall below 0, and its root would be NaN.
    return torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist")


class DualOptimOnServer(TwoStagesOnServer):
    """Merges the centroids of noisy clients, and sends them to noisy clients."""

    def __init__(self, method: DualOptim) -> None:
        super().__init__(method)
        self._centroids = GlobalCentroids()

    def tell_arrays(self, partition: int) -> dict[str, np.ndarray]:
        return self._centroids.told() if learns_as_noisy(self.tell(partition)) else {}

    def heard_arrays(self, server_round: int, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        self._centroids.heard(arrays)

    def state(self) -> dict[str, np.ndarray]:
        return {**super().state(), **self._centroids.state()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        super().load_state(state)
        self._centroids.load_state(state)
