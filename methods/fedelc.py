"""FedELC: noisy clients also learn their labels (Jiang et al., CIKM 2024, arXiv 2408.04301).

Stage 1, and clean clients in stage 2: ``LA = CE(z + log pi, y)``, see `logit_adjustment`. A noisy client in stage 2
keeps label logits Y (n, C), initially K_p onehot(y). With p = softmax(z) and y_d = softmax(Y):

    L = L_c / C + alpha L_o + beta L_e / C
    L_c = mean KL(p || y_d),    L_o = -mean log y_d[y],    L_e = mean of the entropy of p

After each epoch Y <- Y - eta dL/dY, the gradient that each image had in its batch of B images:

    dL/dY = (y_d - p) / (B C) + alpha (y_d - onehot(y)) / B

After the last epoch Y <- K_p (y_d + p_end) / 2, where p_end are the probabilities of the trained network.

The paper's alpha = 0.2 and beta = 0.5 are the defaults; its code has them the other way round. The code takes p_end in
training mode on augmented images, which changes BatchNorm's statistics; here the network is in evaluation mode, on the
images as they are. Because dL/dY contains B, eta fits the paper's B = 64 (with C = 14 a label moves by
1.1 (p - y_d) per epoch); other batch sizes need another.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from config.parameters import parameter
from config.rules import interval
from learning.method import Batch, Visit
from methods.logit_adjustment import adjusted_cross_entropy, log_prior
from methods.two_stages import NOISY, TwoStages, learns_as_noisy


@dataclass(frozen=True)
class FedELC(TwoStages):
    """FedELC; its stages are those of `TwoStages`.

    A noisy client's ``visit.state["label_logits"]`` is Y, (n, C) float32.

    Attributes:
        alpha: Weight of L_o, which keeps labels near the given ones; at least 0.
        beta: Weight of L_e, which makes predictions certain; at least 0.
        sharpness: K_p, above 0.
        label_rate: eta, above 0; the paper takes 5000 for CIFAR-100 and for labels mistaken by people.
        adjustment: tau, the weight of log pi in LA; 0 switches it off.
    """

    alpha: float = parameter(0.2, interval(0))
    beta: float = parameter(0.5, interval(0))
    sharpness: float = parameter(10.0, interval(0, open_low=True))
    label_rate: float = parameter(1000.0, interval(0, open_low=True))
    adjustment: float = parameter(1.0, interval(0))

    remembers: ClassVar[bool] = True
    corrects: ClassVar[bool] = True

    def begin(self, visit: Visit) -> None:
        noisy = learns_as_noisy(visit.told)
        visit.metrics[NOISY] = float(noisy)
        if not noisy:
            visit.state.clear()
            visit.scratch["prior"] = self.adjustment * log_prior(visit.labels, visit.num_classes)
            return
        if "label_logits" not in visit.state:
            zeros = torch.zeros(len(visit.labels), visit.num_classes, device=visit.labels.device)
            visit.state["label_logits"] = zeros.scatter_(1, visit.labels[:, None], self.sharpness)
        # What no batch writes stays 0: images that an epoch drops keep their labels in it.
        visit.scratch["label_gradients"] = torch.zeros_like(visit.state["label_logits"])

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        if "label_logits" not in visit.state:
            return adjusted_cross_entropy(batch.logits, batch.labels, visit.scratch["prior"])
        log_p = batch.logits.log_softmax(dim=1)
        p = log_p.exp()
        log_y = visit.state["label_logits"][batch.rows].log_softmax(dim=1)
        size, classes = p.shape
        given = batch.labels[:, None]
        counts = self.trusted(batch)[:, None]

        gradients = (log_y.exp() - p.detach()) / classes + self.alpha * counts * log_y.exp()
        gradients.scatter_add_(1, given, (-self.alpha * counts).to(gradients.dtype))
        kept = visit.scratch["label_gradients"]
        kept[batch.rows] = (gradients / size).to(kept.dtype)

        compatibility = (p * (log_p - log_y)).sum(dim=1).mean()
        original = -(counts * log_y.gather(1, given)).mean()
        entropy = -(p * log_p).sum(dim=1).mean()
        return (compatibility + self.beta * entropy) / classes + self.alpha * original

    def trusted(self, batch: Batch) -> Tensor:
        """Whose given labels L_o holds on to: (batch,) weights without gradient; here 1 for every image."""
        return torch.ones_like(batch.logits[:, 0]).detach()

    def end_epoch(self, visit: Visit) -> None:
        if "label_logits" in visit.state:
            gradients = visit.scratch["label_gradients"]
            visit.state["label_logits"] = visit.state["label_logits"] - self.label_rate * gradients
            gradients.zero_()

    def end(self, visit: Visit) -> None:
        if "label_logits" not in visit.state:
            visit.corrected = visit.labels
            return
        learned = visit.state["label_logits"].softmax(dim=1)
        merged = (learned + visit.predict().softmax(dim=1)) / 2
        visit.state["label_logits"] = self.sharpness * merged
        visit.corrected = merged.argmax(dim=1)
