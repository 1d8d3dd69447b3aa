"""Loss correction through a transition matrix (Patrini et al., CVPR 2017, arXiv 1609.03683).

With T[i, j] = P(given label j | true class i) and p the softmax of the logits, the loss, averaged over the batch, is

    forward:   -log (T^T p)_y = -log sum_i p_i T[i, y]
    backward:  sum_j T^-1[y, j] (-log p_j)

Forward compares the given labels with those to expect if p is right about the true classes. Backward equals the
cross-entropy on true labels in expectation, at the price of high variance; it can be negative. The paper finds forward
better throughout, hence the default.

The server sends T. The paper estimates it from a model trained on noisy labels; here it is counted on images that carry
both labels, with one added to each count, or given (see `methods.transition`). T describes the labels of noisy train as
released: not those of clean train, nor noise that the run adds.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from config.method_data import ESTIMATE, PUBLISHED
from config.parameters import parameter
from config.rules import TRANSITION, interval, one_of
from config.run_config import ConfigError, RunConfig
from data.release import Release
from data.text import shown
from learning.method import Batch, Method, ServerHalf, Told, Visit
from methods.transition import LISTS, estimate_transition, invert_transition, published_transition, read_transition

TOLD = "transition"  # what the server tells each client under this name: T row by row, C * C numbers

CORRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Forward(Method):
    """Cross-entropy, corrected by the transition matrix.

    Attributes:
        transition: Where T comes from. ``estimate``: counted by the server on its images with both labels;
            ``clothing1m``: the published counts; else the path of a text file on the server, see
            `transition.read_transition`.
        smoothing: Added to each count, so that pairs that were not counted are not impossible.
        correction: One of `CORRECTIONS`.
    """

    both_labels: ClassVar[tuple[str, ...]] = LISTS

    transition: str = parameter(ESTIMATE, TRANSITION)
    smoothing: float = parameter(1.0, interval(0))
    correction: str = parameter("forward", one_of(*CORRECTIONS))

    @property
    def loss_may_be_negative(self) -> bool:
        return self.correction == "backward"

    def begin(self, visit: Visit) -> None:
        """Keep what the visit's losses need: log T, or T^-1, (C, C) float32.

        Raises:
            ConfigError: The server sent no matrix of C classes, it rules out a label that the client holds, or it has
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
        """(C, C) float64: T, as the server sent it."""
        told = cast(list[float], visit.told.get(TOLD, []))
        if len(told) != visit.num_classes**2:
            raise ConfigError(
                f"the server sent {len(told)} numbers of a transition matrix; for {visit.num_classes} classes there"
                f" must be {visit.num_classes**2}."
            )
        return np.array(told, np.float64).reshape(visit.num_classes, -1)

    def on_server(self) -> "ForwardOnServer":
        return ForwardOnServer(self)


class ForwardOnServer(ServerHalf):
    """Reads or estimates the transition matrix, and tells it to every client."""

    def __init__(self, method: Forward) -> None:
        self._method = method
        self._matrix: list[float] = []

    @property
    def needs_data(self) -> bool:
        """To count; a matrix that is given needs none, and is compared with the nodes' classes after the roll call."""
        return self._method.transition == ESTIMATE

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        """Read or estimate T.

        Raises:
            ConfigError: What `estimate_transition` refuses, or labels that are not the release's noisy ones, which the
                matrix does not describe.
        """
        source = self._method.transition
        if source in (ESTIMATE, PUBLISHED):
            if config.train_split == "clean" and config.label_noise != "confusion":
                self._refuse(f"'train-split' is 'clean' and 'label-noise' {config.label_noise!r}")
            if config.train_split != "clean" and config.label_noise != "none":
                self._refuse(f"'label-noise' {config.label_noise!r} changes labels on top of them")
        smoothing = self._method.smoothing
        if release is not None:
            matrix = estimate_transition(source, smoothing, release)
        else:
            matrix = (
                published_transition(smoothing) if source == PUBLISHED else read_transition(Path(source).expanduser())
            )
        self._matrix = matrix.ravel().tolist()

    def check_classes(self, classes: int) -> None:
        """Raises:
        ConfigError: T is of another number of classes.
        """
        if len(self._matrix) != classes**2:
            raise ConfigError(
                f"run config: 'method-args': transition is {shown(self._method.transition)}, a matrix of"
                f" {math.isqrt(len(self._matrix))} classes, but the nodes have {classes}; it must be the path of a"
                " matrix of these classes."
            )

    def tell(self, partition: int) -> dict[str, Told]:
        return {TOLD: self._matrix}

    def _refuse(self, why: str) -> None:
        raise ConfigError(
            f"run config: 'method-args': transition is {self._method.transition!r}, the noise of the released noisy"
            f" labels, but {why}; it must be the path of the matrix of those labels."
        )


def _placed(matrix: np.ndarray, visit: Visit) -> Tensor:
    return torch.from_numpy(matrix).to(visit.labels.device, torch.float32)
