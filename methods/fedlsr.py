"""FedLSR: local self-regularisation (Jiang et al., CIKM 2022): two views of each image must agree, and confidently.

The network gives logits z_1 for an image as the run augments it, and z_2 for one that is mirrored and colour-distorted
as well. With ``p_i = softmax(z_i)`` and ``q_i = softmax(3 z_i)``, at least 1e-6:

- ``L_cls = -mean log p_s[y]``: ``p = lambda p_1 + (1 - lambda) p_2``, with lambda ~ Beta(1, 1), that is, uniform, drawn
  for each batch; sharpened, ``p_s = p^2 / sum_c p_c^2``.
- ``L_reg = mean JS(q_1, q_2)``, the mean of both KL divergences from ``m = (q_1 + q_2) / 2``.
- ``L_e = (mean H(q_1) + mean H(q_2)) / 2``.
- ``loss = L_cls + gamma(t) L_reg + lambda_e L_e``, where ``gamma(t) = gamma * min(1, t / T_w)`` in round t from 0.

Defaults: gamma = 0.4, T_w = 0.2 of the rounds, and lambda_e = 0.6 as in the authors' repository; their later FNBench
has 0.3. Their code differs from their formulas; ``form = "reference"`` computes its loss:

- L_cls is a cross-entropy that takes p_s as logits, so that it cannot leave a narrow band;
- L_reg is also divided by the number of classes;
- L_e is the entropy of ``softmax(q_1)``, which is nearly uniform; the second view is ignored.

The second view of ``colours = "images"`` is drawn for each image, and its colours change before it is normalised. With
``"batch"`` it is made as their code does: of the first view's normalised pixels, with one draw for all images of a
batch, which also cuts off about half of the values (`learning.colour.distort_inputs`).
On scanned digits ``"images"`` is up to 3.4 points better, and never more than 0.1 worse (benchmarks/RESULTS.md).

A learning rate of 0.1 on Clothing1M is what their README advises, for the loop of `preset='notebook'`, whose steps are
plain SGD. Momentum 0.9, as in `preset='clothing1m'`, makes steps about ten times as large: 0.01 there is reasoned, not
theirs. Both are for their loss, whose first gradient by the logits is 0.14 of cross-entropy's; that of the formulas is
twice cross-entropy's. The paper has 0.15 with momentum 0.9, in 100 rounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

from config.parameters import parameter
from config.rules import interval, one_of, rounds_or_share
from learning.augmentation import beside
from learning.colour import distort_inputs
from learning.method import Batch, Method, Seen, Visit, rounds_of

SHARPER = 3.0  # factor on logits before views are compared; the inverse of a temperature
SMALLEST = 1e-6  # of a compared probability


@dataclass(frozen=True)
class FedLSR(Method):
    """Sharpened cross-entropy on a mixture of two views that must agree.

    Attributes:
        gamma: Weight of the divergence between views, at least 0.
        entropy: lambda_e, the weight of L_e, at least 0.
        warm_up: T_w as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: T_w itself; -1 leaves it to the share.
        form: ``paper`` or ``reference``.
        colours: ``images`` or ``batch``: what the second view is drawn for.
    """

    learning_rates: ClassVar[Mapping[str, float]] = {"notebook": 0.1, "clothing1m": 0.01}

    gamma: float = parameter(0.4, interval(0))
    entropy: float = parameter(0.6, interval(0))
    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))
    form: str = parameter("paper", one_of("paper", "reference"))
    colours: str = parameter("images", one_of("images", "batch"))

    def views(self, augmentation: str) -> list[str]:
        if self.colours == "batch":
            return [augmentation]
        return [augmentation, beside(augmentation, "jitter")]

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        if self.colours == "images":
            return seen.inputs
        (view,) = seen.inputs
        return [view, distort_inputs(view, visit.generator)]

    def gamma_at(self, server_round: int, num_rounds: int) -> float:
        """gamma(t); rounds count from 1, which is t = 0."""
        warm_up = rounds_of(self.warm_up, self.warm_up_rounds, num_rounds)
        return self.gamma * min(1.0, (server_round - 1) / warm_up) if warm_up else self.gamma

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        # A scalar on the CPU, which operations on a GPU accept.
        share = torch.rand((), generator=visit.generator)
        one, other = (view.logits for view in batch.views[0])
        compared = [(SHARPER * logits).softmax(dim=1).clamp_min(SMALLEST) for logits in (one, other)]
        sharpened = (2 * mixed(one.log_softmax(dim=1), other.log_softmax(dim=1), share)).log_softmax(dim=1)
        divergence = jensen_shannon(*compared)
        if self.form == "paper":
            fit = nll_loss(sharpened, batch.labels)
            doubt = (entropy(compared[0]) + entropy(compared[1])) / 2
        else:
            fit = cross_entropy(sharpened.exp(), batch.labels)
            divergence = divergence / visit.num_classes
            doubt = entropy(compared[0].softmax(dim=1))
        return fit + self.gamma_at(visit.server_round, visit.num_rounds) * divergence + self.entropy * doubt


def mixed(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Log of the mixture of two distributions, given their logs: `share` of the one, the rest of the other."""
    return torch.logaddexp(one + share.log(), other + (-share).log1p())


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of two (batch, C) tensors of probabilities above 0, in nats."""
    middle = ((one + other) / 2).log()
    return ((one * (one.log() - middle) + other * (other.log() - middle)) / 2).sum(dim=1).mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of (batch, C) probabilities above 0, in nats."""
    return -(probabilities * probabilities.log()).sum(dim=1).mean()
