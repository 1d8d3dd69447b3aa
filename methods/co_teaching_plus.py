"""Co-teaching+ (Yu et al., ICML 2019): co-teaching on those images alone about which the two networks disagree.

Two networks that learn from each other become alike, and then co-teaching is one network that teaches itself. So from
round t_0 on, a batch is first cut down to the images D for which the networks predict different classes. Each keeps
the ``R = max(1, floor((1 - tau_t) |D|))`` of them with the smallest cross-entropy, `I_1` and `I_2`, for the other:

``loss_1 = mean of CE_1 over I_2``, ``loss_2 = mean of CE_2 over I_1``.

If D is empty, both learn from the whole batch. Until t_0, and for tau_t, see `methods.co_teaching`.

The paper begins after 20 of 200 epochs, a tenth, the default here; FNBench after 10 of 120 rounds. With the default
warm-up that is before tau_t has reached tau. The authors' code takes the softmax twice, takes the first image of a
batch for one on which the networks agree, and gives a zero loss to batches without disagreement once it has made 5,000
steps; FNBench divides by zero when one image is left. None of that is here.

Pretrained networks agree on most images, so that few of a batch count. Each network sees its own views here: part of
the disagreement comes from the augmentation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from config.parameters import parameter
from config.rules import interval, rounds_or_share
from learning.method import Batch, Visit, rounds_of
from methods.co_teaching import CoTeaching, easiest_first, judge, kept, losses_of


@dataclass(frozen=True)
class CoTeachingPlus(CoTeaching):
    """Cross-entropy of two networks where they disagree, each on what the other finds easy.

    Images are suspected, and more or less suspect, as in co-teaching, by their loss among all of their batch: that the
    networks agree says nothing about a label.

    Attributes:
        start: t_0 as a share of the run's rounds, from 0 to 1.
        start_rounds: t_0 itself, how many rounds come before; -1 leaves it to the share.
    """

    start: float = parameter(0.1, interval(0, 1))
    start_rounds: int = parameter(-1, rounds_or_share(0, "start"))

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        if visit.server_round <= rounds_of(self.start, self.start_rounds, visit.num_rounds):
            return super().loss(batch, visit)
        rate = self.forget_rate_at(visit.server_round, visit.num_rounds)
        one, other = losses_of(batch)
        judge(batch.rows, one, easiest_first(one)[kept(rate, len(one)) :], visit)
        predicted, predicted_by_other = (views[0].logits.argmax(dim=1) for views in batch.views)
        differ = predicted != predicted_by_other
        count = kept_of(rate, differ.sum()).masked_fill(~differ.any(), len(differ))
        return _mean_of_easiest(one, other, differ, count) + _mean_of_easiest(other, one, differ, count)


def kept_of(forget_rate: float, count: Tensor) -> Tensor:
    """`methods.co_teaching.kept` of a count that only the device knows: () int64 both."""
    return ((1 - forget_rate) * count.double() + 1e-9).floor().long().clamp(min=1)


def _mean_of_easiest(losses: Tensor, judged: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """The mean of the `losses` of some images, without waiting for the device to say how many they are.

    Args:
        losses: (batch,) of the network that learns.
        judged: (batch,) losses of the other one; the images where they are smallest are taken.
        first: (batch,) bool, images that are taken before any others.
        count: () int64, how many are taken, at least 1.
    """
    order = easiest_first(judged.masked_fill(~first, math.inf))
    taken = torch.arange(len(losses), device=losses.device) < count
    return losses[order].where(taken, 0.0).sum() / count
