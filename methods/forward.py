"""Loss correction through a transition matrix (Patrini et al., CVPR 2017, arXiv 1609.03683).

With T[i, j] = P(given label j | true class i) and p the softmax of the logits, the loss, averaged over the batch, is

    forward:   -log (T^T p)_y = -log sum_i p_i T[i, y]
    backward:  sum_j T^-1[y, j] (-log p_j)

Forward compares the given labels with what the model, whose p are the true classes, says they should be. Backward is
what the cross-entropy on true labels is in expectation, at the price of a high variance; it can be negative. The paper
finds forward better throughout, hence the default.

The server tells T. The paper estimates it from a model trained on noisy labels; here it is counted on images that carry
both labels, with one added to each count, or given (see `methods.transition`). T describes the labels of noisy train as
they were released: not those of clean train, nor noise that the run adds.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from config.run_config import ConfigError
from learning.method import Batch, Method, Visit
from methods.transition import TOLD, TransitionSource, invert_transition

CORRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class ForwardCorrection(TransitionSource, Method):
    """Cross-entropy, corrected by the transition matrix.

    Attributes:
        correction: One of `CORRECTIONS`.
    """

    correction: str = "forward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.correction not in CORRECTIONS:
            raise ValueError(f"correction must be one of {', '.join(CORRECTIONS)}")

    def begin(self, visit: Visit) -> None:
        """Keep what the visit's losses need: log T, or T^-1, (C, C) float32.

        Raises:
            ConfigError: The server told no matrix of C classes, it rules out a label that the client holds, or it has
                no inverse and one is needed.
        """
        matrix = self._told(visit)
        if self.correction == "backward":
            visit.scratch["inverse"] = _placed(invert_transition(matrix), visit)
            return
        impossible = torch.from_numpy(matrix.sum(axis=0) == 0).to(visit.labels.device)
        if bool((wrong := impossible[visit.labels]).any()):
            label = int(visit.labels[wrong][0])
            raise ConfigError(
                f"run config: 'method-args': the transition matrix gives label {label} to no class, but there are"
                f" images with it; column {label} of the matrix must have a number above 0 (or smoothing be above 0)."
            )
        with np.errstate(divide="ignore"):
            visit.scratch["log_transition"] = _placed(np.log(matrix), visit)

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        log_p = batch.logits.log_softmax(dim=1)
        if self.correction == "backward":
            inverse: Tensor = visit.scratch["inverse"]
            return -(inverse[batch.labels] * log_p).sum(dim=1).mean()
        log_transition: Tensor = visit.scratch["log_transition"]
        return -(log_p + log_transition.T[batch.labels]).logsumexp(dim=1).mean()

    def _told(self, visit: Visit) -> np.ndarray:
        """(C, C) float64: T, as the server told it."""
        told = cast(list[float], visit.told.get(TOLD, []))
        if len(told) != visit.num_classes**2:
            raise ConfigError(
                f"the server told {len(told)} numbers of a transition matrix; for {visit.num_classes} classes it must"
                f" be {visit.num_classes**2}."
            )
        return np.array(told, np.float64).reshape(visit.num_classes, -1)


def _placed(matrix: np.ndarray, visit: Visit) -> Tensor:
    return torch.from_numpy(matrix).to(visit.labels.device, torch.float32)
