"""Symmetric cross-entropy (Wang et al., ICCV 2019, arXiv 1908.06112): cross-entropy plus its reverse.

    loss = alpha CE + beta RCE,    CE = -log p_y,    RCE = -sum_c p_c log q_c = -A (1 - p_y)

averaged over the batch; p is the softmax of the logits and q the one-hot label, with log 0 taken to be A < 0.
RCE is bounded, so that a wrong label pulls less; CE, with a small weight, keeps the training going.

The paper and its code put A = log 1e-4 = -9.21 by clamping q there (-6 and -4 occur elsewhere), and have alpha and
beta of 0.1 and 1 for CIFAR-10 and 6 and 0.1 for CIFAR-100. For Clothing1M 0.01 and 1 are in circulation, as in
FedNoisy. The defaults here are those of CIFAR-10, which are FNBench's for all datasets.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Method, Visit


@dataclass(frozen=True)
class SCE(Method):
    """Symmetric cross-entropy.

    Attributes:
        alpha: Weight of CE.
        beta: Weight of RCE.
        floor: What stands for the zeros of a one-hot label; its logarithm is A.
    """

    alpha: float = parameter(0.1, interval(0))
    beta: float = parameter(1.0, interval(0))
    floor: float = parameter(1e-4, interval(0, 1, open_low=True, open_high=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha and not self.beta:
            raise ValueError("alpha must be above 0 if beta is 0")

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        log_p = batch.logits.log_softmax(dim=1).gather(1, batch.labels[:, None])
        reverse = -math.log(self.floor) * (1 - log_p.exp())
        return (self.beta * reverse - self.alpha * log_p).mean()
