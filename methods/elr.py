"""FedELR: early-learning regularisation at every client (Liu et al., NeurIPS 2020; Pu et al., Neural Networks 2025).

A network learns what is right before it memorises what is wrong. Each image i keeps a target t_i, the running mean of
what the network predicted for it; the loss pulls predictions to the targets, and so away from labels learned late.

``t_i <- beta t_i + (1 - beta) p_i / sum_c p_ic``, without gradient, starting from 0;
``loss = CE + lambda * mean log(1 - <t_i, p_i>)``, with ``p = softmax(logits)`` clamped to [1e-4, 1 - 1e-4], which keeps
1 - <t_i, p_i> above 1e-4 as well.

The second term is below zero and may outweigh the first: a negative loss is no error. Targets last from visit to visit.
The defaults are ELR's on Clothing1M, beta = 0.7 and lambda = 3; Pu et al.'s later code has 0.1 and 2.

With ``weight_averaging = d`` above 0, the p_i of targets are those of an averaged network, ``v <- d v + (1 - d) w``
after each step, which forgets what a single batch did. It is part of ELR+ (same paper, with d = 0.997), without that
method's second network and MixUp. Here v belongs to the client, which keeps it from visit to visit, and answers in
evaluation mode, with BatchNorm's statistics averaged likewise. It costs a pass without gradients each step. After s
steps a share d^s of v is still what it was: with few steps a visit and many rounds between visits, a smaller d keeps it
from falling behind.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Method, Visit
from learning.own_network import follow

SMALLEST = 1e-4  # of a probability


@dataclass(frozen=True)
class ELR(Method):
    """Cross-entropy, and a pull towards what was predicted early.

    Attributes:
        beta: Share of the old target in the new one, from 0 up to but not including 1.
        strength: lambda, at least 0.
        weight_averaging: d, from 0 up to but not including 1; 0 takes targets from the network that is trained.
    """

    beta: float = parameter(0.7, interval(0, 1, open_high=True))
    strength: float = parameter(3.0, interval(0))
    weight_averaging: float = parameter(0.0, interval(0, 1, open_high=True))

    remembers = True
    corrects = True
    loss_may_be_negative = True

    @property
    def keeps_network(self) -> bool:
        return self.weight_averaging > 0

    def begin(self, visit: Visit) -> None:
        if "targets" not in visit.state:  # (n, C) float32; rows of images not seen yet are 0
            visit.state["targets"] = torch.zeros(len(visit.labels), visit.num_classes, device=visit.labels.device)

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        probabilities = batch.logits.softmax(dim=1).clamp(SMALLEST, 1 - SMALLEST)
        answered = averaged(batch, visit) if self.keeps_network else probabilities.detach()
        predicted = answered / answered.sum(dim=1, keepdim=True)
        targets = self.beta * visit.state["targets"][batch.rows] + (1 - self.beta) * predicted
        visit.state["targets"][batch.rows] = targets.float()
        pull = (1 - (targets * probabilities).sum(dim=1)).log().mean()
        return cross_entropy(batch.logits, batch.labels) + self.strength * pull

    def end_step(self, visit: Visit) -> None:
        if visit.own is not None:
            follow(visit.own, visit.networks[0], self.weight_averaging)

    def end(self, visit: Visit) -> None:
        targets = visit.state["targets"]
        visit.corrected = torch.where(targets.sum(dim=1) > 0, targets.argmax(dim=1), visit.labels)


def averaged(batch: Batch, visit: Visit) -> Tensor:
    """What the client's averaged network predicts for a batch: (batch, C) float32, clamped, without gradients."""
    assert visit.own is not None
    assert visit.inference is not None
    logits = visit.inference.answer(visit.own, batch.views[0][0].inputs, training=False)
    return logits.softmax(dim=1).clamp(SMALLEST, 1 - SMALLEST)
