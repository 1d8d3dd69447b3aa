"""FedDiv (Li et al., AAAI 2024, arXiv 2312.12263): all clients share one filter of wrong labels.

In the warm-up everybody trains in turns on all labels. After that, when the global model arrives at a client:

    filter    losses l_i of the global model on all images; the server's mixture of two Gaussians (`federated_mixture`)
              says how probable it is that l_i belongs to the lower one; below `threshold`, image i is noisy
    client    noisy if delta_k = |noisy images| / n_k is above `noisy_share`; a clean one trains on everything, as given
    relabel   noisy images with max p(x; global) >= zeta get the class argmax p(x; global)
    sample    of the clean and the relabelled images those whose predicted class is consistent (`consistency_sampler`)
    loss      cross-entropy of images mixed in pairs (`learning.mixup`)  +  eta sum_c q_c log(q_c / q_mean_c)

q_mean is the mean prediction of a batch, q uniform. eta is 0 by default; the authors have 1 where clients hold
different classes. The warm-up's loss is the first term alone. Six numbers come back: the client's own mixture of the
same losses, which serves the server's, not this visit. New labels hold for one visit, and the next starts from the
given ones, as in the paper; `corrected` reports them.

Where the paper is silent, or a visit asks for another moment: "local" is the network at the beginning of each local
epoch, so that the sampler looks anew once an epoch, in the first at the global model's own predictions; p_k is updated
at these moments, on a clean client when the model arrives, and after training in the warm-up. Since warm-up visits may
receive a network that knows nothing yet, their six numbers are about the network that they have just trained. If the
sampler keeps fewer than two images, the clean ones are trained on, and if they are fewer than two, all. While no client
has sent six numbers, a client filters by its own; one that has none either is clean.

The default warm-up is half of the rounds: the authors' takes two visits of each client on Clothing1M, which are half of
all visits, as FedCorr's stage 1; on CIFAR-10 five, a twentieth. `iterations` sets the visits. If the filter begins
while the model does not know some class yet, that class is kept out for good.

No loss below the lower mean makes an image noisy (`probably_clean`), which the paper's rule would allow.

Their code fits the mixtures to losses of trained networks, scaled to [0, 1] client by client, and averages variances
with n_k^2 / n^2, which makes them far too small with many clients. It has no sampler in a client's first five visits,
updates p_k with confident images alone, and counts eta twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from learning.batches import not_alone
from learning.method import Batch, Method, Seen, Step, Told, Visit
from learning.mixture import Floats, Mixture
from learning.mixup import Mix, draw_mix
from learning.schema import Number, Schema
from methods.consistency_sampler import consistent, first_with_two, uniform_mean, updated_mean
from methods.feddiv_on_server import FedDivOnServer
from methods.federated_mixture import REPORTED, as_metrics, bounded_losses, fitted, mixture_told
from methods.prior import distance_from_prior, prior_of
from methods.two_stages import NOISY, first_stage_of

MEAN = "mean-prediction"  # in `visit.state`, (C,) float32: p_k


@dataclass(frozen=True)
class FedDiv(Method):
    """One filter for all clients, and what each of them trains on.

    Attributes:
        warm_up: Length of the warm-up as a share of the run's rounds, above 0 and below 1.
        warm_up_rounds: The same in rounds, at least 1; -1 leaves it to the share.
        iterations: How often each client trains in the warm-up; 0: as often as the usual number of clients a round
            gives, but once at least.
        threshold: Of the probability that a label is right, from 0 to 1.
        noisy_share: A client with a larger share of noisy images is noisy; from 0 to 1.
        confidence: zeta, from 0 to 1.
        debias: xi, at least 0; 0 keeps all images whose predicted class training does not change.
        momentum: m, from 0 up to but not including 1.
        alpha: Of MixUp, above 0.
        prior_weight: eta, at least 0.
        weigh_by: What the client's weight in the mean counts: ``held``, all its images; or ``used``, on a noisy client
            those that it trained on in the visit.
    """

    warm_up: float = parameter(0.5, interval(0, 1, open_low=True, open_high=True))
    warm_up_rounds: int = parameter(-1, rounds_or_share(1, "warm-up"))
    iterations: int = parameter(0, at_least(0, 1000))
    threshold: float = parameter(0.5, interval(0, 1))
    noisy_share: float = parameter(0.1, interval(0, 1))
    confidence: float = parameter(0.75, interval(0, 1))
    debias: float = parameter(0.5, interval(0))
    momentum: float = parameter(0.2, interval(0, 1, open_high=True))
    alpha: float = parameter(1.0, interval(0, open_low=True))
    prior_weight: float = parameter(0.0, interval(0))
    weigh_by: str = parameter("held", one_of("held", "used"))

    remembers = True
    corrects = True
    suspects = True
    finds_noisy_clients = True

    def first_stage(self, num_rounds: int) -> int:
        """How many rounds the warm-up takes: at least 1, and fewer than the run's if that has several.

        Raises:
            ConfigError: `warm_up_rounds` is not below the run's rounds.
        """
        return first_stage_of(self.warm_up, self.warm_up_rounds, num_rounds)

    def warms_up(self, visit: Visit) -> bool:
        """Whether a visit is one of the warm-up."""
        return visit.server_round <= self.first_stage(visit.num_rounds)

    def begin(self, visit: Visit) -> None:
        visit.scratch["labels"], visit.scratch["used"] = visit.given, np.zeros(len(visit.given), dtype=bool)
        visit.scratch["prior"] = prior_of("uniform", visit)
        if MEAN not in visit.state:
            visit.state[MEAN] = uniform_mean(visit.num_classes, visit.given.device)
        visit.metrics[NOISY] = 0.0

    def judge(self, visit: Visit) -> None:
        """Filter the images by the received model, which the network still is, and say whether the client is noisy."""
        logits = visit.predict()
        losses, told = bounded_losses(logits, visit.given), mixture_told(visit.told)
        own = self._fit(losses, told, visit)
        clean = probably_clean(losses, own if told is None else told)
        noisy = clean < self.threshold
        visit.suspected = torch.from_numpy(noisy).to(visit.given.device)
        # In the order of 1 - clean, of which float32 would make the most suspect ones equal.
        visit.suspicion = torch.from_numpy(-np.log(clean.clip(min=1e-300))).float().to(visit.given.device)
        if noisy.mean() > self.noisy_share:
            visit.metrics[NOISY] = 1.0
            self._relabel(logits, visit.suspected, visit)
        else:
            self._remember(logits, visit)

    def _fit(self, losses: Floats, start: Mixture | None, visit: Visit) -> Mixture | None:
        """The client's own mixture, if it can have one, whose numbers it will send."""
        own = fitted(losses, start)
        if own is not None:
            visit.metrics |= as_metrics(own)
        return own

    def _remember(self, logits: Tensor, visit: Visit) -> None:
        visit.state[MEAN] = updated_mean(visit.state[MEAN], logits, self.momentum)

    def _relabel(self, logits: Tensor, noisy: Tensor, visit: Visit) -> None:
        """Give noisy images the class that the global model is sure of, and prepare the sampler."""
        confidences, predicted = logits.softmax(dim=1).max(dim=1)
        relabelled = noisy & (confidences >= self.confidence)
        visit.corrected = torch.where(relabelled, predicted, visit.given)
        visit.scratch |= {"labels": visit.corrected, "predicted": predicted, "received": logits}
        visit.scratch |= {"clean": ~noisy, "labelled": ~noisy | relabelled}

    def steps(self, visit: Visit) -> Sequence[Step]:
        """On a noisy client, those of what the sampler keeps; else all."""
        if visit.suspected is None and not self.warms_up(visit):
            self.judge(visit)
        noisy = "labelled" in visit.scratch
        batches = visit.batches(self._kept(visit) if noisy else None)
        if noisy:
            batches = not_alone(batches, visit.batch_size)
        visit.scratch["used"][torch.cat(batches).numpy()] = True
        return [Step((rows,)) for rows in batches]

    def _kept(self, visit: Visit) -> Tensor:
        """(m,) int64 on the CPU: the rows that a noisy client trains on in the epoch that begins."""
        logits = visit.predict() if visit.epoch > 1 else visit.scratch["received"]
        kept = consistent(visit.scratch["predicted"], logits, visit.state[MEAN], self.debias)
        self._remember(logits, visit)
        masks = (kept & visit.scratch["labelled"], visit.scratch["clean"], torch.ones_like(kept))
        return first_with_two(*(torch.from_numpy(np.flatnonzero(mask.cpu().numpy())) for mask in masks))

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        mix = draw_mix(len(seen.labels), self.alpha, visit.generator, seen.labels.device)
        visit.scratch["mix"] = mix
        return [mix.of(inputs) for inputs in seen.inputs]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        mix: Mix = visit.scratch["mix"]
        labels = visit.scratch["labels"][batch.rows]
        own, partners = (cross_entropy(batch.logits, some) for some in (labels, labels[mix.partners]))
        loss = mix.mean(own, partners)
        if self.prior_weight and not self.warms_up(visit):
            distance = distance_from_prior(batch.logits.log_softmax(dim=1), visit.scratch["prior"])
            loss = loss + self.prior_weight * distance
        return loss

    def end(self, visit: Visit) -> None:
        if self.warms_up(visit):
            logits = visit.predict()
            self._fit(bounded_losses(logits, visit.given), mixture_told(visit.told), visit)
            self._remember(logits, visit)
        if self.weigh_by == "used" and "labelled" in visit.scratch:
            visit.used = int(visit.scratch["used"].sum())

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        """Six numbers, and whether the client is noisy by the server's filter; in the warm-up nobody is."""
        return {**REPORTED, NOISY: Number(0, 1, whole=True)}

    def on_server(self) -> FedDivOnServer:
        return FedDivOnServer(self.first_stage, self.iterations)


def probably_clean(losses: Floats, mixture: Mixture | None) -> Floats:
    """(n,) float64, how probably each label is right; 1 for all without a mixture, and if a loss is not finite.

    Losses below the lower mean count as that mean: the upper Gaussian is usually the wider one, and far enough below
    has more density, as for a client that fits far better than the mean of all.
    """
    if mixture is None or not np.isfinite(losses).all():
        return np.ones(len(losses))
    return mixture.lower(losses.clip(min=mixture.means[0])).clip(0.0, 1.0)
