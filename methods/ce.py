"""Cross-entropy on the labels as they are: what FedAvg does when nobody corrects for noise.

``loss = mean over the batch of -sum_c q_c log p_c`` with ``p = softmax(logits)`` and
``q = (1 - s) * onehot(label) + s / C`` for label smoothing ``s`` (Szegedy et al., CVPR 2016; 0 switches it off).

With ``mixup = a`` above 0, images and their q are mixed in pairs with shares from Beta(a, a) (Zhang et al., ICLR 2018;
`learning.mixup`): a network that must tell how much of each it sees memorises wrong labels less. The paper has 0.1 to
0.4 on ImageNet, and up to 8 or 32 against random labels on CIFAR-10; FedCorr and FedDiv have 1 on Clothing1M.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Method, Seen, Visit
from learning.mixup import Mix, draw_mix


@dataclass(frozen=True)
class CE(Method):
    """Cross-entropy.

    Attributes:
        label_smoothing: s, from 0 up to but not including 1.
        mixup: a; 0 mixes nothing.
    """

    label_smoothing: float = parameter(0.0, interval(0, 1, open_high=True))
    mixup: float = parameter(0.0, interval(0))

    @property
    def mixes(self) -> bool:
        return self.mixup > 0

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        if not self.mixup:
            return seen.inputs
        mix = draw_mix(len(seen.labels), self.mixup, visit.generator, seen.labels.device)
        visit.scratch["mix"] = mix
        return [mix.of(inputs) for inputs in seen.inputs]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        own = cross_entropy(batch.logits, batch.labels, label_smoothing=self.label_smoothing)
        if not self.mixup:
            return own
        mix: Mix = visit.scratch["mix"]
        partners = batch.labels[mix.partners]
        return mix.mean(own, cross_entropy(batch.logits, partners, label_smoothing=self.label_smoothing))
