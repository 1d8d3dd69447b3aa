"""MaskedOptim: FedELC that holds on to the likelier labels alone (Jiang et al. 2025, arXiv 2506.02079).

Stages, detection, label logits and their step are FedELC's (`fedelc`). For a noisy client in stage 2, L_o counts only
the ``M = max(1, floor(keep B))`` images of the batch with the smallest cross-entropy ``-log p[y]``:

    L_o = -1/B sum over the M kept images of log y_d[y]

so that the labels of the others follow the predictions freely. With w_t the weights as they were received and w_k as
they were trained, the client returns

    w_t + s (w_k - w_t),    s = 0.8

BatchNorm's statistics like weights; its counters stay as training left them. `begin` keeps w_t, and `end` shortens the
update after p_end was taken from the trained network, so that everything that the client then does with its weights
(clipping, packing) sees the shortened one. Every round is aggregated by the geometric median (`rfa`).

The authors' stage 1 is 30 of 120 rounds, their alpha 0.5 and beta 0.1. Their code takes the median tensor by tensor and
without the clients' numbers of images; here it is RFA's. At least one image is kept, so that batches of one hold on to
their label.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Visit
from methods.fedelc import FedELC


@dataclass(frozen=True)
class MaskedOptim(FedELC):
    """MaskedOptim; what is not said here is as in `FedELC`.

    Attributes:
        warm_up: A quarter is 30 rounds of 120.
        keep: Share of a batch that L_o counts, above 0 and at most 1.
        update_scale: s, above 0 and at most 1.
    """

    warm_up: float = parameter(0.25, interval(0, 1, open_low=True, open_high=True))
    alpha: float = parameter(0.5, interval(0))
    beta: float = parameter(0.1, interval(0))
    keep: float = parameter(0.8, interval(0, 1, open_low=True))
    update_scale: float = parameter(0.8, interval(0, 1, open_low=True))

    strategy = "rfa"

    def begin(self, visit: Visit) -> None:
        super().begin(visit)
        if "label_logits" in visit.state:
            visit.scratch["received"] = [value.clone() for value in _floats(visit)]

    def trusted(self, batch: Batch) -> Tensor:
        losses = cross_entropy(batch.logits.detach(), batch.labels, reduction="none")
        count = max(1, math.floor(self.keep * len(losses) + 1e-9))  # 0.29 * 100 is 28.999999999999996
        return torch.zeros_like(losses).index_fill_(0, losses.argsort(stable=True)[:count], 1.0)

    def end(self, visit: Visit) -> None:
        super().end(visit)
        if received := visit.scratch.get("received"):
            torch._foreach_lerp_(_floats(visit), received, 1 - self.update_scale)


def _floats(visit: Visit) -> list[Tensor]:
    """The network's weights and BatchNorm's statistics, in its own memory and without gradients."""
    return [value for value in visit.networks[0].state_dict().values() if value.is_floating_point()]
