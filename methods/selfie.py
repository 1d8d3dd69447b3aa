"""SELFIE (Song et al., ICML 2019): learn from images with small losses, and from those whose label can be corrected.

A network's predictions for an image settle, even where its label is wrong. Each image keeps the classes predicted in
its last q steps, in training mode, by whichever model the client had; P(c) is the share of class c among them, and

``u = -sum_c P(c) log P(c) / log C``

its uncertainty. After the warm-up, in which all images are learned with their given labels, two sets of a batch of B
images are learned, and the rest is left out:

* the ``max(1, ceil((1 - tau) B))`` with the smallest cross-entropy of the given label;
* those that were ever certain. While ``u <= epsilon``, after q predictions, the image's label becomes the class
  predicted most often (of equals, the first); once an image has a corrected label, it keeps one.

``loss = mean CE over both``, with corrected labels where there are any. The set of small losses is chosen by the given
labels, as in the paper: a correction adds images, and does not decide which of the others are left out.

The defaults are the paper's q = 15 and epsilon = 0.05, and FNBench's tau = 0.2 and warm-up of 24 rounds of 120 (the
paper: the true share of wrong labels, and 25 of 100 epochs). With these, only a unanimous history corrects a label: of
15 predictions among 14 classes, one that differs makes u = 0.093 (0.106 among 10, as in most of the paper), so that 0.1
would let one pass. Which q lets the method work at all is the more important question. A client makes as many
predictions for an image as it trains epochs; at five clients of 100 in each of 40 rounds with five epochs that is 10 on
average, and most would never correct a label with q = 15. So the server warns if fewer than q are to be expected; then
set `history` to 5 or so.

The authors start a second and third time with the corrections of the first, which a run here does not; train on
exported labels instead. FNBench counts a history that is not full as if class 0 had been predicted, and goes through
the network twice; here the first pass is used for both, so that BatchNorm counts each batch once.
"""

import math
from dataclasses import dataclass
from logging import WARNING
from typing import ClassVar

import torch
from flwr.common import log
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.special import entr

from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from config.run_config import RunConfig
from data.release import Release
from learning.method import Batch, Method, ServerHalf, Visit, rounds_of
from methods.history import ENTRIES, HISTORY, begin_history, remember

CERTAIN = "certain"  # in `visit.state`, (n,) bool: images whose label was corrected, maybe to the given one


@dataclass(frozen=True)
class SELFIE(Method):
    """Cross-entropy on what is easy and on what has been corrected.

    Attributes:
        noise_rate: tau, from 0 up to but not including 1.
        history: q, at least 1.
        threshold: epsilon, from 0 to 1.
        warm_up: Length of the warm-up as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: The same in rounds; -1 leaves it to the share.
        weigh_by: What the client's weight in the mean counts: ``held``, all its images, as in FNBench; or ``used``,
            those that it learned from, on average over the visit's epochs.
    """

    noise_rate: float = parameter(0.2, interval(0, 1, open_high=True))
    history: int = parameter(15, at_least(1, 1000))
    threshold: float = parameter(0.05, interval(0, 1))
    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))
    weigh_by: str = parameter("held", one_of("held", "used"))

    remembers = True
    corrects = True
    relabels = True

    def begin(self, visit: Visit) -> None:
        begin_history(visit, self.history, dtype=torch.int32)
        if CERTAIN not in visit.state:
            visit.state[CERTAIN] = torch.zeros_like(visit.labels, dtype=torch.bool)
        visit.scratch["used"] = torch.zeros((), dtype=torch.int64, device=visit.labels.device)  # over all steps

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        remember(visit, batch.rows, batch.logits.detach().argmax(dim=1))
        if visit.server_round <= rounds_of(self.warm_up, self.warm_up_rounds, visit.num_rounds):
            visit.scratch["used"] += len(batch.rows)
            return cross_entropy(batch.logits, batch.labels)
        self._correct(batch.rows, visit)
        learned = self._easy(batch, visit) | visit.state[CERTAIN][batch.rows]
        count = learned.sum()
        visit.scratch["used"] += count
        losses = cross_entropy(batch.logits, visit.labels[batch.rows], reduction="none")
        return losses.where(learned, 0.0).sum() / count

    def _easy(self, batch: Batch, visit: Visit) -> Tensor:
        """(batch,) bool: the images with the smallest losses of their given labels."""
        losses = cross_entropy(batch.logits.detach(), visit.given[batch.rows], reduction="none")
        count = trusted(self.noise_rate, len(losses))
        easy = torch.zeros_like(losses, dtype=torch.bool)
        return easy.index_fill_(0, losses.argsort(stable=True)[:count], True)

    def _correct(self, rows: Tensor, visit: Visit) -> None:
        """Replace the labels of those images of a batch that are certain now."""
        uncertainties, classes = judged(visit.state[HISTORY][rows], visit.num_classes)
        certain = (visit.state[ENTRIES][rows] >= self.history) & (uncertainties <= self.threshold)
        visit.labels[rows] = classes.where(certain, visit.labels[rows])
        visit.state[CERTAIN][rows] |= certain

    def end(self, visit: Visit) -> None:
        if self.weigh_by == "used":
            visit.used = round(int(visit.scratch["used"]) / visit.epoch)

    def on_server(self) -> "SELFIEOnServer":
        return SELFIEOnServer(self)


class SELFIEOnServer(ServerHalf):
    """Warns of histories that will not fill."""

    reads_data: ClassVar[bool] = False

    def __init__(self, method: SELFIE) -> None:
        self._method = method

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        expected = config.num_server_rounds * config.fraction_train * config.local_epochs
        if expected < self._method.history:
            log(
                WARNING,
                "selfie corrects an image's label after %d predictions, but a client of this run makes about %.3g for"
                " each of its images, one an epoch: few labels will be corrected, or none. Set a smaller history in"
                " 'method-args', or train for more rounds or epochs.",
                self._method.history,
                expected,
            )


def trusted(noise_rate: float, count: int) -> int:
    """How many of `count` images have small losses; 0.7 of 10 leaves 3, though (1 - 0.7) * 10 is above that."""
    return max(1, math.ceil((1 - noise_rate) * count - 1e-9))


def judged(history: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """How uncertain predictions are, and what most of them are.

    Args:
        history: (batch, q) int32 classes.
        num_classes: C.

    Returns:
        (batch,) float32, from 0 to 1: the entropy of the classes' shares over its largest value. (batch,) int64.
    """
    votes = torch.zeros(len(history), num_classes, device=history.device)
    votes.scatter_add_(1, history.long(), torch.ones_like(history, dtype=votes.dtype))
    shares = votes / history.shape[1]
    return entr(shares).sum(dim=1) / math.log(max(2, num_classes)), votes.argmax(dim=1)
