"""Joint optimisation (Tanaka et al., CVPR 2018): labels become what the network predicted lately.

Each image has a soft label s, at first its given label. After each local epoch beyond the warm-up, s becomes the mean
of the image's last q predictions, one an epoch: the softmax of the training's own forward passes, divided by as many as
there are so far. With `labels` = hard, s is 1 at the mean's largest class. Two terms keep all images from getting one
class, and predictions from staying undecided:

``loss = L_c + alpha L_p + beta L_e``, with a batch's predictions p, their mean p_mean, and a prior pi of the classes:
``L_c = -mean sum_c s_c log p_c``, ``L_p = sum_c pi_c log(pi_c / p_mean_c)``, ``L_e = -mean sum_c p_c log p_c``.

The paper's L_c is KL(s || p), less the entropy of s, which has the same gradient; the authors' code leaves the constant
``sum_c pi_c log pi_c`` out of L_p. Here L_p is 0 at best and L_c is cross-entropy, as the other methods report it.

The defaults are the authors' alpha = 1.2, beta = 0.8, q = 10 and a uniform prior, with FNBench's warm-up of 24 rounds
of 120 (its q is 15). Where classes are uneven, or a client lacks some, a uniform prior predicts what is not there:
`prior` = given takes the shares among the client's given labels. FNBench divides by q before there are q predictions,
so that young labels add up to less than 1, and where one image of a batch is new, gives all of the batch their given
labels back. The authors then train a new network on the final labels, which a run here does not; train on exported
labels instead.

The q predictions are kept in half precision, exact to 0.0003, beside s in single: ``2 q C + 4 C`` bytes an image, for
q = 10 and C = 14 336, or 3.4 MB for 10,000 images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from learning.method import Batch, Method, Visit, rounds_of
from methods.history import ENTRIES, HISTORY, begin_history, remember
from methods.prior import PRIORS, distance_from_prior, one_hot, prior_of

SOFT = "soft"  # in `visit.state`, (n, C) float32: s


@dataclass(frozen=True)
class JointOptimization(Method):
    """Cross-entropy of labels that follow the predictions, and two terms that keep both from collapsing.

    Attributes:
        alpha: Weight of L_p, at least 0.
        beta: Weight of L_e, at least 0.
        history: q, at least 1.
        labels: ``soft`` or ``hard``.
        prior: ``uniform``, or ``given``: the shares of the classes among the client's given labels.
        warm_up: Length of the warm-up as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: The same in rounds; -1 leaves it to the share.
    """

    alpha: float = parameter(1.2, interval(0))
    beta: float = parameter(0.8, interval(0))
    history: int = parameter(10, at_least(1, 1000))
    labels: str = parameter("soft", one_of("soft", "hard"))
    prior: str = parameter("uniform", one_of(*PRIORS))
    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))

    remembers = True
    corrects = True
    relabels = True

    def begin(self, visit: Visit) -> None:
        begin_history(visit, self.history, visit.num_classes, dtype=torch.float16)
        if SOFT not in visit.state:
            visit.state[SOFT] = one_hot(visit.given, visit.num_classes)
        visit.scratch["prior"] = prior_of(self.prior, visit)

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        logs = batch.logits.log_softmax(dim=1)
        remember(visit, batch.rows, logs.detach().exp())
        fit = -(visit.state[SOFT][batch.rows] * logs).sum(dim=1).mean()
        spread = distance_from_prior(logs, visit.scratch["prior"])
        entropy = -(logs.exp() * logs).sum(dim=1).mean()
        return fit + self.alpha * spread + self.beta * entropy

    def end_epoch(self, visit: Visit) -> None:
        """Give each image that was ever seen its new label."""
        if visit.server_round <= rounds_of(self.warm_up, self.warm_up_rounds, visit.num_rounds):
            return
        # Each entry adds up to 1, and those that are not there yet to 0: this divides by how many there are, and makes
        # good what half precision has rounded.
        total = visit.state[HISTORY].sum(dim=1, dtype=torch.float32)
        soft = total / total.sum(dim=1, keepdim=True).clamp(min=0.5)
        classes = soft.argmax(dim=1)
        if self.labels == "hard":
            soft = one_hot(classes, visit.num_classes)
        seen = visit.state[ENTRIES] > 0
        visit.state[SOFT] = soft.where(seen[:, None], visit.state[SOFT])
        visit.labels = classes.where(seen, visit.labels)
