"""Which clients' models help another client to find its clean images, and what they say; for `methods.fedrn`.

The server scores clients j for client i, with expertises e and probe outputs o of all that have been heard, i included:

    score_j = alpha minmax(e)_j + (1 - alpha) minmax(cos(o_i, o_.))_j
"""

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from learning.frozen_features import Head
from learning.inference import Inference
from learning.method import Visit
from learning.mixture import Floats, fit_mixture
from learning.shared_state import load_shared
from methods.dividemix import FEWEST, ITERATIONS
from task import classifier

DECIMALS = 9  # by which scores differ at least; 0.6 * 0.5 + 0.4 * 0.75 is not 0.6 in float64


def scores_for(own: int, expertises: Floats, probes: Floats, alpha: float) -> Floats:
    """(m,) scores of all clients for one of them, from 0 to 1; its own among them.

    Args:
        own: That client's position.
        expertises: (m,).
        probes: (m, C).
        alpha: Weight of expertise.
    """
    similarities = cosines(probes, probes[own])
    similarities[own] = 1.0  # also where its output is 0
    scores: Floats = alpha * min_max(expertises) + (1 - alpha) * min_max(similarities)
    return scores


def cosines(some: Floats, other: Floats) -> Floats:
    """(m,) cosines of (m, C) rows and one of (C,); 0 where either is 0."""
    products, lengths = some @ other, np.linalg.norm(some, axis=1) * np.linalg.norm(other)
    found: Floats = np.divide(products, lengths, out=np.zeros(len(some)), where=lengths > 0)
    return found


def min_max(values: Floats) -> Floats:
    """(m,) numbers scaled to [0, 1]; equal ones are all 1, so that they leave no sum of scores at 0."""
    low, high = values.min(), values.max()
    scaled: Floats = (values - low) / (high - low) if high > low else np.ones(len(values))
    return scaled


def best(scores: Floats, own: int, count: int) -> list[int]:
    """The positions of the others with the highest scores, the best first; of equal ones the first."""
    order = np.argsort(-np.round(scores, DECIMALS), kind="stable")
    return [int(one) for one in order if one != own][:count]


# At the client.


def clean_probabilities(losses: Floats) -> Floats | None:
    """(n,) probability of each image that its loss is one of the small ones; None if some loss is not finite.

    Losses are scaled to [0, 1], and the mixture is fitted as in `methods.dividemix`. Of fewer than ten images, and of
    equal losses, all count as small.
    """
    if not np.isfinite(losses).all():
        return None
    low, high = losses.min(), losses.max()
    if len(losses) < FEWEST or low == high:
        return np.ones(len(losses))
    scaled = (losses - low) / (high - low)
    return fit_mixture(scaled, ITERATIONS).lower(scaled)


def above(probabilities: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """(n,) which images count as clean: those above the threshold, or all if that leaves fewer than two.

    BatchNorm may need two.
    """
    chosen: npt.NDArray[np.bool_] = probabilities > threshold
    return chosen if chosen.sum() >= min(2, len(chosen)) else np.ones(len(chosen), dtype=bool)


def weighted(weights: list[float], probabilities: list[Floats | None]) -> Floats | None:
    """(n,) mean of what the own model and the neighbours' say; None if none of them, or none with weight, judges."""
    heard = [(weight, said) for weight, said in zip(weights, probabilities, strict=True) if said is not None]
    total = sum(weight for weight, _ in heard)
    if total <= 0:
        return None
    mean: Floats = np.sum([weight * said for weight, said in heard], axis=0) / total
    return mean


class Neighbour:
    """A copy of the client's network, into which neighbours' models are loaded one after another."""

    def __init__(self, visit: Visit) -> None:
        """Copy the network; it stays in evaluation mode, so that BatchNorm keeps the statistics that came with it."""
        assert visit.inference is not None
        self._visit = visit
        self._inference: Inference = visit.inference
        self._network: nn.Module = copy.deepcopy(visit.networks[0]).eval().requires_grad_(False)

    def losses(self, model: Mapping[str, Tensor], rows: Tensor) -> Floats:
        """(n,) cross-entropy of a neighbour on all local images, once its classifier has been tuned on some.

        The classifier, and it alone, is trained for one epoch by the run's optimiser at the round's rate, on features
        of images without augmentation, which the rest of the network computes once.

        Args:
            model: What travels of the neighbour's network.
            rows: (m,) int64 on the CPU, the images to tune on.
        """
        load_shared(self._network, model)
        layer, labels = classifier(self._network), self._visit.labels
        features = self._inference.features_of_all(self._network)
        tune(layer, features, labels, rows, self._visit)
        with torch.no_grad():
            losses = cross_entropy(layer(features), labels, reduction="none")
        found: Floats = losses.double().cpu().numpy()
        return found


def tune(layer: nn.Linear, features: Tensor, labels: Tensor, rows: Tensor, visit: Visit) -> None:
    """Train a classifier for one epoch on some of (n, d) features and (n,) labels.

    Args:
        layer: Changed in place.
        features: On the device.
        labels: Likewise.
        rows: (m,) int64 on the CPU, which are used, in random batches of the run's size.
        visit: Its generator draws, and its optimiser trains.
    """
    layer.requires_grad_(True)
    optimizer = visit.optimizer(layer)
    for part in visit.batches(rows):
        batch = part.to(features.device)
        cross_entropy(layer(features[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.take_gradients()
        optimizer.step()
        optimizer.zero_grad()
    layer.requires_grad_(False)


def probe_output(visit: Visit, seed: int) -> Tensor:
    """(C,) logits of the network as it is now, in evaluation mode, on the same noise at every client.

    The noise is an image of standard normal numbers, as the network sees them, of the run's size; or a vector of such
    numbers, where clients train the last layer on features that never change.

    Args:
        visit: With the network, and the size.
        seed: The same at every client.
    """
    assert visit.inference is not None
    network, side = visit.networks[0], visit.inference.image_size
    shape = (1, classifier(network).in_features) if isinstance(network, Head) else (1, 3, side, side)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(visit.labels.device)
    return visit.answer(noise)[0]
