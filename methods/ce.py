"""Cross-entropy on the labels as they are: what FedAvg does when nobody corrects for noise.

``loss = mean over the batch of -sum_c q_c log p_c`` with ``p = softmax(logits)`` and
``q = (1 - s) * onehot(label) + s / C`` for label smoothing ``s`` (Szegedy et al., CVPR 2016; 0 switches it off).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Method, Visit


@dataclass(frozen=True)
class CE(Method):
    """Cross-entropy.

    Attributes:
        label_smoothing: s, from 0 up to but not including 1.
    """

    label_smoothing: float = parameter(0.0, interval(0, 1, open_high=True))

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels, label_smoothing=self.label_smoothing)
