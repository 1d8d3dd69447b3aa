"""What was measured of the model that is exported, and on what."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.measure import VISITS, on_clients_of, validation_of
from runs.hub.subject import Subject
from runs.report.figures import is_number

MOST_CLASSES = 100  # that a table has; of more, those with the lowest recall
SHORT = 20


@dataclass(frozen=True)
class OfClass:
    """Of one class, on clean test.

    Attributes:
        name: As the data has it.
        images: How many there are; None if unknown.
        recall: Share of them that is found; None without images.
        precision: Share of the images with this answer that are of the class; None without such answers, or if unknown.
    """

    name: str
    images: int | None
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Measured:
    """Of the model, on clean test; shares from 0 to 1.

    Attributes:
        split: Name of the list.
        images: How many; None if unknown.
        accuracy: Share of images whose class is found.
        macro_f1: See docs/metrics.md; None if unknown.
        loss: Mean cross-entropy, in nats; None if unknown.
        classes: In the order of the outputs; empty if unknown.
    """

    split: str
    images: int | None
    accuracy: float
    macro_f1: float | None
    loss: float | None
    classes: tuple[OfClass, ...]


def measured(subject: Subject) -> Measured | None:
    """What metrics.jsonl has of the model's round; None if it was not tested."""
    line = subject.line()
    if (accuracy := _number(line.get("test-accuracy"))) is None:
        return None
    confusion = _confusion(line, len(subject.class_names))
    images = None if confusion is None else int(confusion.sum())
    split = str(subject.config.get("test-split", "clean_test"))
    found = tuple(_classes(subject.class_names, line, confusion))
    return Measured(split, images, accuracy, _number(line.get("macro-f1")), _number(line.get("test-loss")), found)


def images_by_class(subject: Subject) -> list[int]:
    """On clean test, in the order of the outputs; empty if unknown."""
    confusion = _confusion(subject.line(), len(subject.class_names))
    return [] if confusion is None else [int(count) for count in confusion.sum(axis=1)]


def other_measures(subject: Subject) -> dict[str, float]:
    """Accuracies of the model that are not on clean test, 0 to 1, each with what it was measured on."""
    config = subject.config
    measures = [validation_of(config), on_clients_of(config), *([VISITS] if config.get("holdout-fraction") else [])]
    found = {one.name: _number(subject.line(one.lag).get(one.accuracy)) for one in measures}
    return {name: value for name, value in found.items() if value is not None}


def _classes(names: tuple[str, ...], line: dict[str, Any], confusion: np.ndarray | None) -> Iterator[OfClass]:
    recalls = line.get("per-class-recall")
    if not isinstance(recalls, list) or len(recalls) != len(names):
        return
    for number, (name, recall) in enumerate(zip(names, recalls, strict=True)):
        if confusion is None:
            yield OfClass(name, None, _number(recall), None)
            continue
        answers = int(confusion[:, number].sum())
        precision = float(confusion[number, number] / answers) if answers else None
        yield OfClass(name, int(confusion[number].sum()), _number(recall), precision)


def _confusion(line: dict[str, Any], classes: int) -> np.ndarray | None:
    """(classes, classes) int64, rows are true classes; None if the line has none, or another's."""
    table = line.get("confusion-matrix")
    try:
        found = np.array(table, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.shape == (classes, classes) and (found >= 0).all() and found.sum() else None


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
