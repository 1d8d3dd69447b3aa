"""DivideMix (Li, Socher and Hoi, ICLR 2020, arXiv 2002.07394): two networks sort each other's images, and mix them.

In the T_w warm-up rounds both networks learn from all labels: ``CE + c sum p log p``, the last term against confidence.
Then, before every local epoch, the losses of each network on all local images, scaled to [0, 1], become a mixture of
two Gaussians. w_i is the probability that image i belongs to the one with the lower mean. Where it is above
`threshold`, the *other* network takes the image as labelled, else as unlabelled. A step trains one network on a batch
of both kinds, in two views each:

    q = sharpen(w onehot(y) + (1 - w) mean of its own p over the views)          labelled: co-refinement
    q = sharpen(mean of p over the views and both networks)                      unlabelled: co-guessing
    sharpen(q) = q^(1/T) / sum_c q_c^(1/T)
    x~, q~ = mixed with random partners from the whole batch, l ~ Beta(a, a), l <- max(l, 1 - l)
    L = mean of -sum q~ log p  +  lambda_u r_t mean of (p - q~)^2  +  sum_c pi_c log(pi_c / mean p_c)
        over the labelled         over the unlabelled, and classes    over all that went through the network

r_t rises from 0 in the first round after warm-up to 1 after `ramp`, once a round where the paper's rises once a batch.
Defaults are the authors' on Clothing1M, a = T = threshold = 0.5 and lambda_u = 0: there only the labelled part is
trained on, though its partners may be unlabelled. For synthetic noise they have a = 4 and lambda_u = 25 to 150.
T_w is FNBench's 24 rounds of 120 and r_t the authors' 16 epochs, as shares of the run; on Clothing1M they warm up for
one epoch of 80.

Where this differs from their code: batches are not balanced by class, so `prior` can be the client's own; the network
that is trained answers all views in one pass, in training mode as theirs does in four, so that a labelled image that is
alone in its batch does not stop BatchNorm (the other network is in evaluation mode in both); each labelled batch comes
with as many unlabelled images at most, and these start anew when they run out. Everybody counts as labelled, with
w = 1, if a client holds fewer than ten images, if all losses are equal, and if nobody is above `threshold`.

``strong = true`` is AugDesc (Nishi et al., CVPR 2021, arXiv 2103.02130), "weak and strong": losses and guesses as
before, but trained on two more views of each image, changed by RandAugment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval, one_of, rounds_or_share, true_or_false
from learning.augmentation import strong as strong_view
from learning.batches import epoch_batches
from learning.method import Batch, Method, Seen, Step, Visit, rounds_of
from learning.mixture import Floats, fit_mixture
from learning.mixup import draw_mix
from methods.prior import PRIORS, distance_from_prior, one_hot, prior_of

FEWEST = 10  # images that two Gaussians are fitted to; they have five parameters
ITERATIONS = 10  # of the fit at most, the authors' on Clothing1M


@dataclass(frozen=True)
class DivideMix(Method):
    """Two networks, each of which learns from what the other divides into labelled and unlabelled images.

    With ``augmentation = "none"`` views are mirrored half of the time nevertheless: equal ones would tell nothing. The
    reported loss is the mean over the steps of both networks. Suspected are, after warm-up, the images that network 0
    takes as unlabelled in the last epoch; an image is as suspect as its 1 - w there.

    Attributes:
        warm_up: T_w as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: T_w itself; -1 leaves it to the share.
        confidence_penalty: c, at least 0; the authors have 1 for Clothing1M and asymmetric noise, else 0.
        threshold: Of w, from 0 up to but not including 1.
        temperature: T, above 0.
        alpha: a, above 0.
        lambda_u: At least 0; 0 trains on the labelled part alone.
        ramp: How long r_t rises, as a share of the run's rounds, from 0 to 1.
        ramp_rounds: The same in rounds; -1 leaves it to the share.
        prior: pi: ``uniform``, or ``given`` for the shares of the classes among the client's given labels.
        strong: Whether training is on strong views.
        weigh_by: What the client's weight in the mean counts: ``held``, all its images; or ``used``, those that one of
            its networks was trained on in the visit.
    """

    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))
    confidence_penalty: float = parameter(1.0, interval(0))
    threshold: float = parameter(0.5, interval(0, 1, open_high=True))
    temperature: float = parameter(0.5, interval(0, open_low=True))
    alpha: float = parameter(0.5, interval(0, open_low=True))
    lambda_u: float = parameter(0.0, interval(0))
    ramp: float = parameter(2 / 15, interval(0, 1))
    ramp_rounds: int = parameter(-1, rounds_or_share(0, "ramp"))
    prior: str = parameter("uniform", one_of(*PRIORS))
    strong: bool = parameter(False, true_or_false())
    weigh_by: str = parameter("held", one_of("held", "used"))

    networks = 2
    suspects = True
    loss_may_be_negative = True
    # Of each network: all images labelled but few, and as many unlabelled ones again.
    passes = 4

    def warm_up_of(self, num_rounds: int) -> int:
        """T_w of a run."""
        return rounds_of(self.warm_up, self.warm_up_rounds, num_rounds)

    def ramp_at(self, server_round: int, num_rounds: int) -> float:
        """r_t; rounds count from 1, which is t = 0."""
        length = rounds_of(self.ramp, self.ramp_rounds, num_rounds)
        past = server_round - 1 - self.warm_up_of(num_rounds)
        return min(max(past / length, 0.0), 1.0) if length else float(past >= 0)

    def views(self, augmentation: str) -> list[str]:
        weak = "flip" if augmentation == "none" else augmentation
        return [weak] * 2 + ([strong_view(weak)] * 2 if self.strong else [])

    def begin(self, visit: Visit) -> None:
        visit.scratch["prior"] = prior_of(self.prior, visit)
        visit.scratch["used"] = np.zeros(len(visit.given), dtype=bool)

    def steps(self, visit: Visit) -> Sequence[Step]:
        """All of one network's, then all of the other's, which guesses with the help of the first as it is by then."""
        if visit.server_round <= self.warm_up_of(visit.num_rounds):
            steps = [Step((rows,), network) for network in (0, 1) for rows in visit.batches()]
        else:
            judged = [clean(losses_of(visit, network), self.threshold) for network in (1, 0)]  # by the other one
            device = visit.labels.device
            visit.scratch["clean"] = torch.from_numpy(np.stack(judged)).float().to(device)  # (2, n), by who uses it
            visit.suspected = torch.from_numpy(judged[0] <= self.threshold).to(device)
            visit.suspicion = 1 - visit.scratch["clean"][0]
            steps = [step for network in (0, 1) for step in self._divided(visit, network, judged[network])]
        for step in steps:
            visit.scratch["used"][torch.cat(step.groups[: 2 if self.lambda_u else 1]).numpy()] = True
        return steps

    def _divided(self, visit: Visit, network: int, judged: Floats) -> list[Step]:
        chosen = judged > self.threshold
        labelled, unlabelled = (torch.from_numpy(np.flatnonzero(part)) for part in (chosen, ~chosen))
        batches = visit.batches(labelled)
        beside = again_and_again(unlabelled, [len(rows) for rows in batches], visit.generator)
        return [Step(groups, network) for groups in zip(batches, beside, strict=True)]

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        if len(seen.sizes) == 1:  # in warm-up
            return seen.inputs[:1]
        believed, labelled = self.believed(seen, visit), seen.sizes[0]
        trained = seen.inputs[-2:]
        inputs = torch.cat([view[:labelled] for view in trained] + [view[labelled:] for view in trained])
        targets = torch.cat([believed[:labelled]] * 2 + [believed[labelled:]] * 2)
        mix = draw_mix(len(inputs), self.alpha, visit.generator, inputs.device, mostly_own=True)
        first = None if self.lambda_u else 2 * labelled
        visit.scratch["targets"] = mix.of(targets, first)
        return [mix.of(inputs, first)]

    def believed(self, seen: Seen, visit: Visit) -> Tensor:
        """(batch, C) float32, the sharpened q of a batch, without gradients."""
        weak, (labelled, unlabelled) = seen.inputs[:2], seen.sizes
        q = self._mean_answer(weak, seen.network, visit, training=True)
        w = visit.scratch["clean"][seen.network][seen.rows[:labelled], None]
        given = one_hot(seen.labels[:labelled], visit.num_classes)
        parts = [w * given + (1 - w) * q[:labelled]]
        if unlabelled:
            other = self._mean_answer([view[labelled:] for view in weak], 1 - seen.network, visit, training=False)
            parts.append((q[labelled:] + other) / 2)
        return sharpened(torch.cat(parts), self.temperature)

    def _mean_answer(self, views: list[Tensor], network: int, visit: Visit, *, training: bool) -> Tensor:
        """(batch, C), a network's mean probabilities over views of a batch, all of which go through it at once."""
        answers = visit.answer(torch.cat(views), network, training=training).softmax(dim=1)
        mean: Tensor = answers.view(len(views), -1, visit.num_classes).mean(dim=0)
        return mean

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        logs = batch.logits.log_softmax(dim=1)
        if len(batch.sizes) == 1:  # in warm-up
            negative_entropy = (logs.exp() * logs).sum(dim=1).mean()
            return cross_entropy(batch.logits, batch.labels) + self.confidence_penalty * negative_entropy
        targets: Tensor = visit.scratch["targets"]
        labelled = 2 * batch.sizes[0]
        loss = -(targets[:labelled] * logs[:labelled]).sum(dim=1).mean()
        if self.lambda_u and batch.sizes[1]:
            squares = (logs[labelled:].exp() - targets[labelled:]).square().mean()
            loss = loss + self.lambda_u * self.ramp_at(visit.server_round, visit.num_rounds) * squares
        return loss + distance_from_prior(logs, visit.scratch["prior"])

    def end(self, visit: Visit) -> None:
        if self.weigh_by == "used":
            visit.used = int(visit.scratch["used"].sum())


def losses_of(visit: Visit, network: int) -> Floats:
    """(n,) cross-entropy of a network on all local images, in evaluation mode and without augmentation."""
    losses = cross_entropy(visit.predict(network), visit.labels, reduction="none")
    found: Floats = losses.double().cpu().numpy()
    return found


def clean(losses: Floats, threshold: float) -> Floats:
    """The w of each image, (n,); 1 for all if the mixture cannot tell them apart, or finds nobody above the threshold.

    Args:
        losses: (n,).
        threshold: See `DivideMix`.
    """
    everybody = np.ones(len(losses))
    low, high = losses.min(), losses.max()
    if len(losses) < FEWEST or low == high or not np.isfinite(losses).all():
        return everybody
    scaled = (losses - low) / (high - low)
    found = fit_mixture(scaled, ITERATIONS).lower(scaled)
    return found if (found > threshold).any() else everybody


def again_and_again(rows: Tensor, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Random batches of some images, which start anew when they run out.

    Args:
        rows: (m,) int64; may be empty.
        sizes: Of the batches at most; none has more than m.
        generator: On the CPU.
    """
    sizes = [min(size, len(rows)) for size in sizes]
    order = rows[:0]
    while len(order) < sum(sizes):
        order = torch.cat([order, *(rows[part] for part in epoch_batches(len(rows), len(rows), False, generator))])
    return list(order[: sum(sizes)].split(sizes))  # type: ignore[no-untyped-call]


def sharpened(q: Tensor, temperature: float) -> Tensor:
    """``q^(1/T) / sum_c q_c^(1/T)`` of (n, C) probabilities."""
    return (q.log() / temperature).softmax(dim=1)
