"""A model applied to images with classes: what it answers, and how well."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from learning.evaluation import Evaluation, Tally, answers
from runs.errors import RunsError
from runs.model.labelled import Labelled
from runs.model.opened import OpenedModel


@dataclass(frozen=True)
class Judged:
    """What a model answered.

    Attributes:
        evaluation: Of all n images, as a run's server computes it.
        names: Key or path of each image.
        truth: (n,) int64 classes.
        predicted: (n,) int64 classes.
        probability: (n,) float32, of the predicted class.
        loss: (n,) float32, cross-entropy in nats.
    """

    evaluation: Evaluation
    names: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    loss: np.ndarray

    def worst(self, most: int) -> np.ndarray:
        """The rows of wrongly classified images, those of the highest loss first; of equal ones the first."""
        order = np.argsort(-self.loss, kind="stable")
        rows: np.ndarray = order[self.predicted[order] != self.truth[order]][:most]
        return rows


def judge(opened: OpenedModel, images: Labelled, done: Callable[[int], None] = lambda count: None) -> Judged:
    """Apply a model to images.

    Args:
        opened: The model.
        images: The images.
        done: Hears how many more have been judged.

    Raises:
        RunsError: None of them can be read.
        DataError: One cannot be read, and is not to be left out.
    """
    tally, names = Tally(opened.compute.device), list[str]()
    columns: list[tuple[np.ndarray, ...]] = []
    for block in images.blocks():
        names += block.names
        numbers = opened.facts.numbers
        for logits, given in answers(opened.model, block.pixels, block.truth, opened.compute, numbers):
            tally.add(logits, given)
            top = logits.softmax(dim=1).amax(dim=1)
            losses = torch.nn.functional.cross_entropy(logits, given, reduction="none")
            columns.append(tuple(one.cpu().numpy() for one in (given, logits.argmax(dim=1), top, losses)))
            done(len(given))
    if not columns:
        raise RunsError(f"no image of {images.where} can be read; one of them: {images.notes[-1]}")
    truth, predicted, probability, loss = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Judged(tally.evaluation(), names, truth, predicted, probability, loss)
