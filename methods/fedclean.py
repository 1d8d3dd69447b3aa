"""FedClean (Jiang and Zhang, ICML 2025): clients judge labels alone, then with the global model, and train on the rest.

Made for federations in which every client's labels are noisy. At a client's first visit a method for noisy labels
learns from its images alone (`learning.alone`): joint optimisation (the paper's FedClean2) or co-teaching (FedClean1).
With y the given labels and y_bar the class that the learner predicts, D^c = {y = y_bar} counts as clean. Then, with
the p of the global model as a client receives it:

    stage 1   train on D^c
    stage 2   outside of D^c, where argmax p = y_bar, L_co = CE(p, y) - CE(p, y_bar) becomes a mixture of two Gaussians;
              the largest share sigma_1 of the upper one gets the label y_bar, and is trained on as well
    stage 3   of the rest, CE(p, y) becomes a mixture; the lower one counts as clean; of the largest share sigma_2 of
              the upper one, images with max p >= epsilon get the label argmax p; all these are trained on as well

Training is cross-entropy of images mixed by MixUp. A model's weight in the mean is how many images its client trained
on (the paper's ASSA). What is left out of a stage is not trained on; each step of relabelling happens once.

The paper has 50, 100 and 100 of 250 rounds, the defaults here as shares. It relabels everybody when a stage begins;
here each client does so at its first visit in the stage, with the model that it receives there, and one that missed
stage 2 takes both steps at once. The pre-training likewise starts from the model of a client's first visit, which for
most is not that of round 1. A client whose state is lost begins again with it.

No published text that we could read has sigma_1, sigma_2, epsilon, or the length of the pre-training. The first three
are what FedCorr (Xu et al., CVPR 2022), whose protocol the paper follows, has on Clothing1M for the same purposes: a
share of 0.8 and a confidence of 0.9 (0.5 and 0.5 on CIFAR-10). Ten epochs give joint optimisation the ten predictions
of an image that its authors average. y_bar is the class that the trained network predicts, as in the paper, not that of
joint optimisation's averaged labels. A client alone may lack classes, so its prior is its own shares of given labels.

Numbers are scaled to [0, 1] before a mixture is fitted. Upper is what lies above the mean of the lower Gaussian and is
more likely to come from the upper one. Where fewer than ten images are left, or all numbers are equal, all are upper:
the client's learner has doubted their labels, and no mixture speaks for them. A client with fewer than two images to
train on trains on all, and one image that a last batch would hold alone joins the batch before, for BatchNorm's sake.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from learning.batches import not_alone
from learning.method import Method, Step, Visit, rounds_of
from learning.mixture import Floats, fit_mixture
from methods.ce import CE
from methods.co_teaching import CoTeaching
from methods.joint_optimization import JointOptimization
from methods.prior import PRIORS

LEARNERS = ("joint-optimization", "co-teaching")
FEWEST = 10  # images that two Gaussians are fitted to; they have five parameters
FEWEST_TRAINED = 2  # images; BatchNorm may refuse one
ROUNDING = 1e-5  # of losses in float32: numbers that are closer together count as equal

# In `visit.state`.
INFERRED = "inferred"  # (n,) int64: y_bar
CLEAN = "clean"  # (n,) bool: D^c, and what was relabelled or found clean later
DOUBT = "doubt"  # (n,) float32: the given label's cross-entropy, by the last model that judged it
DONE = "done"  # (1,) int64: the last stage whose judgement has been made; 0 before the first visit


@dataclass(frozen=True)
class FedClean(CE):
    """Cross-entropy of mixed images, on those whose labels agree with a learner of the client's own, or were corrected.

    Stage 3 has what the first two leave of the run; a stage that would begin after its end does not take place.

    Images are suspected if they count as unclean or were relabelled. `suspicion` is ``l / (1 + l)``, l the given
    label's cross-entropy by the client's learner, later by the global model of the last relabelling; plus 1 if they are
    suspected.

    Attributes:
        mixup: a of MixUp; 0 mixes nothing.
        learner: What learns alone: ``joint-optimization`` or ``co-teaching``.
        alone_epochs: How long, at least 1.
        prior: Of the classes, for joint optimisation alone: ``given``, or ``uniform``.
        forget_rate: tau of co-teaching alone, from 0 up to but not including 1.
        first_stage: Length of stage 1 as a share of the run's rounds, above 0 and at most 1; it has one round at least.
        first_stage_rounds: The same in rounds, at least 1; -1 leaves it to the share.
        second_stage: Length of stage 2 as a share of the run's rounds, from 0 to 1.
        second_stage_rounds: The same in rounds; -1 leaves it to the share.
        relabel_agreed: sigma_1, from 0 to 1.
        relabel_confident: sigma_2, from 0 to 1.
        confidence: epsilon, from 0 to 1.
    """

    mixup: float = parameter(1.0, interval(0))
    learner: str = parameter("joint-optimization", one_of(*LEARNERS))
    alone_epochs: int = parameter(10, at_least(1, 1000))
    prior: str = parameter("given", one_of(*PRIORS))
    forget_rate: float = parameter(0.2, interval(0, 1, open_high=True))
    first_stage: float = parameter(0.2, interval(0, 1, open_low=True))
    first_stage_rounds: int = parameter(-1, rounds_or_share(1, "first-stage"))
    second_stage: float = parameter(0.4, interval(0, 1))
    second_stage_rounds: int = parameter(-1, rounds_or_share(0, "second-stage"))
    relabel_agreed: float = parameter(0.8, interval(0, 1))
    relabel_confident: float = parameter(0.8, interval(0, 1))
    confidence: float = parameter(0.9, interval(0, 1))

    remembers = True
    corrects = True
    relabels = True
    suspects = True

    @property
    def passes_alone(self) -> int:
        return self.alone_epochs * self.local_learner().passes

    def local_learner(self) -> Method:
        """What learns from a client's images alone."""
        if self.learner == "co-teaching":
            return CoTeaching(forget_rate=self.forget_rate)
        return JointOptimization(prior=self.prior)

    def stage_at(self, server_round: int, num_rounds: int) -> int:
        """1, 2 or 3; rounds count from 1."""
        first = max(1, rounds_of(self.first_stage, self.first_stage_rounds, num_rounds))
        second = rounds_of(self.second_stage, self.second_stage_rounds, num_rounds)
        return 1 + (server_round > first) + (server_round > first + second)

    def begin(self, visit: Visit) -> None:
        if DONE in visit.state:
            return
        visit.state[INFERRED] = visit.given.clone()
        visit.state[CLEAN] = torch.ones_like(visit.given, dtype=torch.bool)
        visit.state[DOUBT] = torch.zeros_like(visit.given, dtype=torch.float32)
        visit.state[DONE] = torch.zeros_like(visit.given[:1])

    def steps(self, visit: Visit) -> Sequence[Step]:
        if visit.epoch == 1:
            visit.scratch["trained"] = self._judged(visit)
        rows: Tensor = visit.scratch["trained"]
        return [Step((batch,)) for batch in not_alone(visit.batches(rows), visit.batch_size)]

    def end(self, visit: Visit) -> None:
        suspected = ~visit.state[CLEAN] | (visit.labels != visit.given)
        doubt = visit.state[DOUBT]
        visit.suspected = suspected
        visit.suspicion = suspected + (doubt / (1 + doubt)).nan_to_num(1.0)  # of an infinite one
        visit.used = len(visit.scratch["trained"])

    def _judged(self, visit: Visit) -> Tensor:
        """(m,) int64 on the CPU, the rows to train on, once all that this stage asks for has been judged."""
        stage, done = self.stage_at(visit.server_round, visit.num_rounds), int(visit.state[DONE])
        if done == 0:
            logits = visit.alone(self.local_learner(), self.alone_epochs).logits
            visit.state[INFERRED] = logits.argmax(dim=1)
            visit.state[CLEAN] = visit.state[INFERRED] == visit.given
            visit.state[DOUBT] = cross_entropy(logits, visit.given, reduction="none")
            done = 1
        if done < stage:
            logits = visit.predict()
            visit.state[DOUBT] = cross_entropy(logits, visit.given, reduction="none")
            if done < 2:
                self._relabel_agreed(visit, logits)
            if stage == 3:
                self._relabel_confident(visit, logits)
        visit.state[DONE].fill_(max(stage, done))
        rows = visit.state[CLEAN].cpu().nonzero()[:, 0]
        return rows if len(rows) >= FEWEST_TRAINED else torch.arange(len(visit.given))

    def _relabel_agreed(self, visit: Visit, logits: Tensor) -> None:
        """Stage 2's: y_bar for the images whose given label both models find far less likely."""
        inferred = visit.state[INFERRED]
        agreed = ~visit.state[CLEAN] & (logits.argmax(dim=1) == inferred)
        # CE(p, y) - CE(p, y_bar), in which log sum_c exp z_c cancels
        losses = logits.gather(1, inferred[:, None])[:, 0] - logits.gather(1, visit.given[:, None])[:, 0]
        rows, values = of_those(agreed, losses)
        chosen = rows[largest(values, upper(values), self.relabel_agreed)]
        self._believe(visit, chosen, inferred)

    def _relabel_confident(self, visit: Visit, logits: Tensor) -> None:
        """Stage 3's: the global model's classes for the worst images, if it is sure; the better ones are clean."""
        rows, values = of_those(~visit.state[CLEAN], visit.state[DOUBT])
        likely, classes = logits.softmax(dim=1).max(dim=1)
        worse = upper(values)
        chosen = rows[largest(values, worse, self.relabel_confident)]
        sure = (likely >= self.confidence).cpu()
        self._believe(visit, rows[np.flatnonzero(~worse)], visit.given)
        self._believe(visit, chosen[sure[chosen]], classes)

    def _believe(self, visit: Visit, rows: Tensor, classes: Tensor) -> None:
        """Train on some images from now on, with their labels among (n,) `classes`."""
        rows = rows.to(visit.labels.device)
        visit.labels[rows] = classes[rows]
        visit.state[CLEAN][rows] = True


def of_those(chosen: Tensor, values: Tensor) -> tuple[Tensor, Floats]:
    """The rows of some images, (m,) int64 on the CPU, and their numbers, (m,); from (n,) bool and (n,) float32."""
    rows = chosen.cpu().nonzero()[:, 0]
    found: Floats = values.cpu().double()[rows].numpy()
    return rows, found


def upper(values: Floats) -> npt.NDArray[np.bool_]:
    """Which of (m,) numbers belong to the upper of two Gaussians, (m,); all, if none can be fitted."""
    everybody = np.ones(len(values), dtype=bool)
    if len(values) < FEWEST or not np.isfinite(values).all() or np.ptp(values) <= ROUNDING:
        return everybody
    scaled = (values - values.min()) / np.ptp(values)
    return fit_mixture(scaled).is_upper(scaled)


def largest(values: Floats, among: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.int64]:
    """Where the largest numbers are, (k,): this share of those that are `among` (m,), rounded down.

    Of equal ones, the first count as larger.
    """
    places = np.flatnonzero(among)
    count = int(share * len(places) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    return places[np.argsort(-values[places], kind="stable")[:count]]
