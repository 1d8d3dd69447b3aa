"""Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836): between cross-entropy and MAE.

    L_q = (1 - p_y^q) / q;    truncated: L_q(k) = (1 - k^q) / q where p_y <= k

averaged over the batch. q towards 0 gives cross-entropy, q = 1 gives 1 - p_y, which noise hardly affects but which
learns slowly. The gradient by the logits is p_y^q (p - onehot(y)): the less an image fits its label, the less it
counts. Truncated, it does not count at all where p_y <= k.

q = 0.7 and, when truncated, k = 0.5 are the paper's. Its code truncates from epoch 40 on, by the best model so far and
anew every 10 epochs; here each batch is judged by the model in training, in every round. Start a truncated run from
weights that know the classes: a fresh network has p_y = 1 / C for all images, and with k above that never learns.

A fresh classifier of 14 classes gives p_y^q = 0.16, so that learning starts with a sixth of cross-entropy's steps. The
learning rate of 0.01 for `preset='clothing1m'` is that of FedNoisy (SMILELab-FL), with momentum 0.9 as there, in its
commands for gce (MNIST) and for Clothing1M (cross-entropy). 0.1 for the plain SGD of `preset='notebook'` is reasoned:
momentum 0.9 makes steps about ten times as large.

Other code clamps p_y to 1e-7 or so, since its power has no gradient at 0; here the power is computed from the
logarithm, where value and gradient are right for any p_y.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Method, Visit

POWERS = interval(0, 1, open_low=True, but="its limit at 0 is cross-entropy, method='ce'")


@dataclass(frozen=True)
class GCE(Method):
    """Generalised cross-entropy.

    Attributes:
        q: From cross-entropy, towards 0, to mean absolute error, at 1.
        truncation: k; 0 truncates nothing.
    """

    learning_rates: ClassVar[Mapping[str, float]] = {"notebook": 0.1, "clothing1m": 0.01}

    q: float = parameter(0.7, POWERS)
    truncation: float = parameter(0.0, interval(0, 1, open_high=True))

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        log_p = batch.logits.log_softmax(dim=1).gather(1, batch.labels[:, None])
        # Not expm1, though it is more exact near p_y = 1: torch's gradient of it, 1 + expm1, is 0 for small p_y.
        losses = (1 - (self.q * log_p).exp()) / self.q
        if self.truncation:
            constant = (1 - self.truncation**self.q) / self.q
            losses = torch.where(log_p.exp() <= self.truncation, constant, losses)
        return losses.mean()
