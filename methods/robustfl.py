"""RobustFL (Yang et al., IEEE Intelligent Systems 2022, arXiv 2012.01700): clients learn from small losses, and share
centroids of features, so that they draw the same boundaries between classes.

With F(x) what goes into the classifier and c_j the centroid of class j, a step on B images takes the
``R = max(1, floor((1 - tau_t) B))`` with the smallest cross-entropy, and

    m_i = [y_i is the class j with the largest cos(c_j, F(x_i))]                       the centroids say so, too
    L = CE of y_i if m_i else of yhat_i
        + lambda(t) sum_i m_i |F(x_i) - c_{y_i}|^2 / (d sum_i m_i)
        + lambda_e mean H(p)                                                           against unsure predictions

    c_j <- (1 - s_j^2) c_j + s_j^2 (mean of F(x_i) over those with y_i = j),   s_j = max(cos of the two, 0)

over the R images; the c_j follow after the step. yhat is what the global model predicts as the client receives it, anew
in each visit. Until round T_pl it is the given label. lambda(t) = lambda min(t / T_pl, 1) with t the round, from 1.
tau_t rises as in `co_teaching`. Centroids travel beside the weights, and `methods.centroids` says how the server merges
them. Of a class that the server does not know, at first of all, the client knows nothing either until a step saw it:
m_i is 0, and c_j becomes that step's mean.

No code of the authors is public. FNBench took over another's (github.com/jangsoohyuk), from which this differs:

* There the features are detached, so that centroids move no weight; here that term has its gradient.
* There it is a sum over images and features, so that with its gradient it would grow with the batch and with d, from
  128 features of a small network to 2048 of a ResNet-50. Here it is the mean over the images with m_i = 1, and over
  features; ``distance = "sum"`` is the norm above without the d.
* There all images are predicted one by one; here in one pass, once yhat counts.
* There round 1 begins with mean features in evaluation mode, in which the BatchNorm of a fresh network knows no
  statistics: those of a ResNet-18 from random weights are a sixth as large as a step's. It costs a pass besides.
* There s_j may be negative, so that c_j moves towards a mean that points away from it; and a c_j at right angles to all
  features, which a client may make up or a random start bring, would stay for good. Where s_j is below `SIMILAR`, c_j
  becomes the step's mean.
* A step moves c_j only if it saw two images of class j at least, and a client says nothing of classes of which it holds
  one alone, so that what it sends is never the features of one image.
* The server cuts centroids down to `LONGEST` times the median length, and a client those that it receives to `LONGEST`
  times the longest feature of its first step: where few clients hold a class, the median may be one of their choice.

The defaults are the code's lambda = 1 and lambda_e = 0.8, and FNBench's tau = 0.2 and warm-up of 24 rounds of 120. T_pl
is when that ends, as in the comparison of FedRN's authors (100 of 500 rounds both), so that a fifth of a run has taught
the network. The code's is 100 of 1000 rounds, FNBench's 10 of 120: never less than five passes through all clients'
images, which three rounds of 40 on a tenth of the clients are not. What is predicted too early confirms itself, since
those labels and the entropy term pull the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from config.parameters import parameter
from config.rules import interval, one_of, rounds_or_share
from learning.method import Batch, Method, ServerHalf, Told, Visit, rounds_of
from learning.schema import Floats
from methods.centroids import CENTROIDS, KNOWN, LONGEST, SIMILAR, GlobalCentroids, centroids_sent, class_means
from methods.co_teaching import CoTeaching, easiest_first, kept

FEWEST = 2  # images of a class, below which their mean would be one image's features


@dataclass(frozen=True)
class RobustFL(Method):
    """Cross-entropy on small losses, features near their centroid, and decided predictions.

    An image is suspected if its last step left it out, or took another label than the given one. How suspect it is, is
    its cross-entropy there.

    Attributes:
        forget_rate: tau, from 0 up to but not including 1.
        warm_up: How long tau_t rises, as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: The same in rounds; -1 leaves it to the share.
        pseudo_start: T_pl as a share of the run's rounds, from 0 to 1; at least one round, since a fresh classifier
            predicts nothing.
        pseudo_start_rounds: T_pl itself, how many rounds come before predictions count as labels; -1 leaves it to the
            share.
        centre: lambda, at least 0.
        distance: Of features from their centroid: the ``mean`` or the ``sum`` of the d squares.
        entropy: lambda_e, at least 0.
    """

    forget_rate: float = parameter(0.2, interval(0, 1, open_high=True))
    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))
    pseudo_start: float = parameter(0.2, interval(0, 1))
    pseudo_start_rounds: int = parameter(-1, rounds_or_share(0, "pseudo-start"))
    centre: float = parameter(1.0, interval(0))
    distance: str = parameter("mean", one_of("mean", "sum"))
    entropy: float = parameter(0.8, interval(0))

    features = True
    suspects = True

    def forget_rate_at(self, server_round: int, num_rounds: int) -> float:
        """tau_t; rounds count from 1."""
        like = CoTeaching(self.forget_rate, self.warm_up, self.warm_up_rounds)
        return like.forget_rate_at(server_round, num_rounds)

    def pseudo_start_of(self, num_rounds: int) -> int:
        """T_pl of a run."""
        length = rounds_of(self.pseudo_start, self.pseudo_start_rounds, num_rounds)
        return length if self.pseudo_start_rounds >= 0 else max(1, length)

    def centre_at(self, server_round: int, num_rounds: int) -> float:
        """lambda(t); rounds count from 1."""
        return self.centre * min(server_round / max(1, self.pseudo_start_of(num_rounds)), 1.0)

    def begin(self, visit: Visit) -> None:
        visit.scratch["predicted"] = visit.labels
        if visit.server_round > self.pseudo_start_of(visit.num_rounds):
            visit.scratch["predicted"] = visit.predict().argmax(dim=1)
        if visit.received:
            visit.scratch["received"], visit.scratch[KNOWN] = visit.received[CENTROIDS], visit.received[KNOWN] > 0
        visit.scratch["suspected"] = torch.zeros_like(visit.labels, dtype=torch.bool)
        visit.scratch["losses"] = torch.zeros(len(visit.labels), device=visit.labels.device)

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        given_features = batch.views[0][0].features
        assert given_features is not None
        losses = cross_entropy(batch.logits.detach(), batch.labels, reduction="none")
        count = kept(self.forget_rate_at(visit.server_round, visit.num_rounds), len(losses))
        chosen = easiest_first(losses)[:count]
        features, labels, rows = given_features[chosen], batch.labels[chosen], batch.rows[chosen]
        if "received" in visit.scratch:
            visit.scratch[CENTROIDS] = cut_to(features.detach(), visit.scratch.pop("received"))
        elif CENTROIDS not in visit.scratch:
            visit.scratch[CENTROIDS] = features.new_zeros(visit.num_classes, features.shape[1])
            visit.scratch[KNOWN] = torch.zeros(visit.num_classes, dtype=torch.bool, device=labels.device)
        centroids, known = visit.scratch[CENTROIDS], visit.scratch[KNOWN]
        fits = known[labels] & (nearest(features.detach(), centroids, known) == labels)
        believed = labels.where(fits, visit.scratch["predicted"][rows])
        visit.scratch["suspected"][batch.rows] = True
        visit.scratch["suspected"][rows] = believed != labels
        visit.scratch["losses"][batch.rows] = losses.float()
        visit.scratch["step"] = class_means(features.detach(), labels, visit.num_classes, FEWEST)

        logs = batch.logits[chosen].log_softmax(dim=1)
        entropy = -(logs.exp() * logs).sum(dim=1).mean()
        loss = cross_entropy(batch.logits[chosen], believed) + self.entropy * entropy
        apart = centre_loss(features, centroids[labels], fits)
        weight = self.centre_at(visit.server_round, visit.num_rounds)
        return loss + weight * (apart / features.shape[1] if self.distance == "mean" else apart)

    def end_step(self, visit: Visit) -> None:
        means, seen = visit.scratch.pop("step")
        visit.scratch[CENTROIDS] = followed(visit.scratch[CENTROIDS], means, seen)
        visit.scratch[KNOWN] = visit.scratch[KNOWN] | seen

    def end(self, visit: Visit) -> None:
        """The last judgement of each image stays; those that no step saw are not suspected."""
        visit.suspected = visit.scratch["suspected"]
        visit.suspicion = visit.scratch["losses"]
        counts = torch.zeros(visit.num_classes, device=visit.labels.device)
        counts.scatter_add_(0, visit.labels, torch.ones(len(visit.labels), device=visit.labels.device))
        held = (counts >= FEWEST) & visit.scratch[KNOWN]
        visit.sends = {CENTROIDS: visit.scratch[CENTROIDS] * held[:, None], KNOWN: held.float()}

    def sends(self, told: Mapping[str, Told], classes: int, width: int) -> Mapping[str, Floats]:
        """The centroids as they are after training, of classes that the client holds."""
        return centroids_sent(classes, width)

    def on_server(self) -> "RobustFLOnServer":
        return RobustFLOnServer()


def nearest(features: Tensor, centroids: Tensor, known: Tensor) -> Tensor:
    """(n,) int64: the class whose centroid has the largest cosine with each of some features; of equals, the first.

    Args:
        features: (n, d).
        centroids: (C, d).
        known: (C,) bool, those that count.
    """
    cosines = normalize(features, dim=1) @ normalize(centroids, dim=1).T
    return cosines.masked_fill(~known, -torch.inf).argmax(dim=1)


def cut_to(features: Tensor, centroids: Tensor) -> Tensor:
    """Centroids (C, d) that are no longer than `LONGEST` times the longest of some features (n, d).

    The loss has the square of their distance: another client's number of any size must not end this one's training.
    """
    longest = LONGEST * torch.linalg.vector_norm(features, dim=1).max()
    lengths = torch.linalg.vector_norm(centroids, dim=1, keepdim=True)
    factors: Tensor = longest / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    return centroids * factors.clamp(max=1.0)


def centre_loss(features: Tensor, own: Tensor, fits: Tensor) -> Tensor:
    """The mean squared distance of some features from their centroids; 0 if there are none.

    Args:
        features: (n, d), with gradients.
        own: (n, d), the centroid of each one's class.
        fits: (n,) bool, those that count.
    """
    squares = (features - own).square().sum(dim=1).where(fits, 0.0)
    return squares.sum() / fits.sum().clamp(min=1)


def followed(centroids: Tensor, means: Tensor, seen: Tensor) -> Tensor:
    """The c_j after a step, (C, d).

    Args:
        centroids: (C, d), before it; 0 where they are not known.
        means: (C, d), of the step's features.
        seen: (C,) bool, the classes that it saw; the others stay.
    """
    similar = (normalize(centroids, dim=1) * normalize(means, dim=1)).sum(dim=1, keepdim=True)
    share = similar.square().where(similar >= SIMILAR, 1.0) * seen[:, None]
    return (1 - share) * centroids + share * means


class RobustFLOnServer(ServerHalf):
    """Merges the centroids of all clients, and sends them to all."""

    def __init__(self) -> None:
        self._centroids = GlobalCentroids()

    def tell_arrays(self, partition: int) -> dict[str, np.ndarray]:
        return self._centroids.told()

    def heard_arrays(self, server_round: int, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        self._centroids.heard(arrays, shorten=True)

    def state(self) -> dict[str, np.ndarray]:
        return self._centroids.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._centroids.load_state(state)
