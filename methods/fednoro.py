"""FedNoRo: noisy clients distil the global model (Wu et al., IJCAI 2023, arXiv 2305.05230).

Stage 1, and clean clients in stage 2: ``LA = CE(z + log pi, y)``, see `logit_adjustment`. Noisy clients in stage 2,
with z_g from the global model as it was received:

    L = w KL(softmax(z_g / T) || softmax(z + log pi)) + (1 - w) LA
    w(t) = w_max exp(-5 (1 - (clip(t, b, e) - b) / (e - b))^2),    t from 0

The server detects noisy clients after stage 1, and aggregates stage 2 by distance; see `two_stages`.

Reference code: 10 of 100 rounds in stage 1 and b = 10, e = 49; FNBench 20 of 120 and b = 20, e = 120, which is the
default here, as shares. The teacher sees the augmented images that the student sees, in evaluation mode. Classes that a
client lacks are left out of the sum in KL, as in the code, which can bring it below 0; with log pi of 1e-8 in it the
student would learn to prefer just these classes.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import kl_div

from config.parameters import parameter
from config.rules import interval, rounds_or_share
from learning.method import Batch, Visit, rounds_of
from methods.logit_adjustment import adjusted_cross_entropy, log_prior, shares
from methods.two_stages import BEGAN, NOISY, TwoStages, learns_as_noisy


@dataclass(frozen=True)
class FedNoRo(TwoStages):
    """FedNoRo; its stages are those of `TwoStages`.

    Attributes:
        temperature: T, above 0.
        distillation: w_max, from 0 to 1.
        ramp_end: e, where w reaches w_max, as a share of the run's rounds, above 0 and at most 1.
        ramp_end_round: e in rounds, at least 1; -1 leaves it to `ramp_end`.
        adjustment: tau, the weight of log pi; 0 switches it off.
    """

    temperature: float = parameter(0.8, interval(0, open_low=True))
    distillation: float = parameter(0.8, interval(0, 1))
    ramp_end: float = parameter(1.0, interval(0, 1, open_low=True))
    ramp_end_round: int = parameter(-1, rounds_or_share(1, "ramp-end"))
    adjustment: float = parameter(1.0, interval(0))

    def weight(self, server_round: int, began: int, num_rounds: int) -> float:
        """w, the weight of distillation, in a round of stage 2, which began in round `began`; both count from 1."""
        b, e = began - 1, rounds_of(self.ramp_end, self.ramp_end_round, num_rounds)
        progress = 1.0 if e <= b else (min(max(server_round - 1, b), e) - b) / (e - b)
        return self.distillation * math.exp(-5 * (1 - progress) ** 2)

    def begin(self, visit: Visit) -> None:
        noisy = learns_as_noisy(visit.told)
        visit.metrics[NOISY] = float(noisy)
        visit.scratch["prior"] = self.adjustment * log_prior(visit.labels, visit.num_classes)
        if noisy:
            began = visit.told.get(BEGAN) or self.first_stage(visit.num_rounds) + 1
            assert isinstance(began, int)
            visit.scratch["weight"] = self.weight(visit.server_round, began, visit.num_rounds)
            visit.scratch["held"] = shares(visit.labels, visit.num_classes) > 0
            visit.scratch["teacher"] = visit.frozen()

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        prior = visit.scratch["prior"]
        supervised = adjusted_cross_entropy(batch.logits, batch.labels, prior)
        if "teacher" not in visit.scratch:
            return supervised
        taught = visit.scratch["teacher"](batch.views[0][0].inputs)
        target = (taught / self.temperature).softmax(dim=1) * visit.scratch["held"]
        divergence = kl_div((batch.logits + prior).log_softmax(dim=1), target, reduction="batchmean")
        weight: float = visit.scratch["weight"]
        return weight * divergence + (1 - weight) * supervised
