"""Co-teaching (Han et al., NeurIPS 2018): two networks, each of which picks what the other learns from.

Wrong labels are learned last. So of each batch of B images, the ``R = max(1, floor((1 - tau_t) B))`` with the smallest
cross-entropy are kept: ``I_1`` by network 1, ``I_2`` by network 2.

``loss_1 = mean of CE_1 over I_2``, ``loss_2 = mean of CE_2 over I_1``.

tau_t rises linearly from 0 in the first round to tau in the last of the T_w warm-up rounds, then stays. The paper has
10 epochs for T_w and the true share of wrong labels for tau (about 0.38 on Clothing1M); FNBench, which counts in
rounds, has 0.2 of them and tau = 0.2, the defaults here. The authors' code divides the mean loss by R again, as if the
learning rate were divided by R; here, as in FNBench, it is the mean.

Both networks are arrays of one model (`task.Networks`), so that every elementwise strategy averages each network with
its counterparts. Each sees its own views, where the paper shows both the same: otherwise networks that start from the
same pretrained weights would hardly differ.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval, rounds_or_share
from learning.method import Batch, Method, Visit, rounds_of


@dataclass(frozen=True)
class CoTeaching(Method):
    """Cross-entropy of two networks, each on what the other finds easy.

    The reported loss is ``loss_1 + loss_2``: of two networks, on kept images only. An image is as suspect as its
    cross-entropy was under network 1 when the visit last trained on it; 0 if it never did.

    Attributes:
        forget_rate: tau, from 0 up to but not including 1.
        warm_up: T_w as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: T_w itself; -1 leaves it to the share.
    """

    forget_rate: float = parameter(0.2, interval(0, 1, open_high=True))
    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))

    networks = 2
    suspects = True

    def forget_rate_at(self, server_round: int, num_rounds: int) -> float:
        """tau_t; rounds count from 1, which is t = 0."""
        warm_up, t = rounds_of(self.warm_up, self.warm_up_rounds, num_rounds), server_round - 1
        return self.forget_rate * t / max(1, warm_up - 1) if t < warm_up else self.forget_rate

    def begin(self, visit: Visit) -> None:
        visit.suspected = None
        visit.scratch["left_out"] = torch.zeros_like(visit.labels, dtype=torch.bool)  # in this epoch, by network 1
        visit.scratch["losses"] = torch.zeros_like(visit.labels, dtype=torch.float32)  # when last seen, of network 1

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        count = kept(self.forget_rate_at(visit.server_round, visit.num_rounds), len(batch.labels))
        one, other = losses_of(batch)
        easy_for_one, easy_for_other = easiest_first(one), easiest_first(other)
        judge(batch.rows, one, easy_for_one[count:], visit)
        return one[easy_for_other[:count]].mean() + other[easy_for_one[:count]].mean()

    def end_epoch(self, visit: Visit) -> None:
        """The last epoch's judgement stays; images that it did not see are not suspected."""
        visit.suspected = visit.scratch["left_out"]
        visit.scratch["left_out"] = torch.zeros_like(visit.suspected)
        # No number sorts last, and the loss of an image that is left out may be none.
        visit.suspicion = visit.scratch["losses"].nan_to_num(nan=torch.finfo(torch.float32).max)


def judge(rows: Tensor, losses: Tensor, left_out: Tensor, visit: Visit) -> None:
    """Note what network 1 makes of a batch.

    Args:
        rows: (batch,) int64, of the images.
        losses: (batch,) its cross-entropies.
        left_out: (any number,) int64, which places of the batch it leaves out.
        visit: Where it is noted.
    """
    visit.scratch["left_out"].index_fill_(0, rows[left_out], True)
    visit.scratch["losses"].index_copy_(0, rows, losses.detach().float())


def losses_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Each network's (batch,) cross-entropies."""
    one, other = (cross_entropy(views[0].logits, batch.labels, reduction="none") for views in batch.views)
    return one, other


def easiest_first(losses: Tensor) -> Tensor:
    """(batch,) int64: the order of rising losses; equal ones keep theirs."""
    return losses.detach().argsort(stable=True)


def kept(forget_rate: float, count: int) -> int:
    """R of `count` images; 0.34 of 50 must leave 33, though (1 - 0.34) * 50 is 32.99999999999999."""
    return max(1, math.floor((1 - forget_rate) * count + 1e-9))
