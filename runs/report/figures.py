"""The numbers behind a page's pictures, as plain lists that become JSON; `page.js` draws them."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from config.measure import (
    CLEAN_SLICES,
    CLEAN_TRAIN,
    CLEAN_VAL,
    HELD_OUT,
    NOISY_VAL,
    NOTHING,
    Measure,
    on_clients_of,
    validation_of,
)
from data.confusion import MANY_CLASSES, WORST
from runs.run import Run
from runs.table import Line
from server_app.over_clients import PERCENTILES

PERCENT = 100.0
OWN = "Accuracy on what the round's clients hold out (their own labels)"


@dataclass(frozen=True)
class Kind:
    """A number of each round.

    Attributes:
        key: Of metrics.jsonl.
        title: Of its chart.
        unit: Of what is drawn.
        factor: What it is multiplied by.
        means_it: Whether that is what the key stands for in a run with this config.
    """

    key: str
    title: str
    unit: str = "%"
    factor: float = PERCENT
    means_it: Callable[[Mapping[str, Any]], bool] = lambda config: True


def _measured(measure: Measure, of: Callable[[Mapping[str, Any]], Measure]) -> Kind:
    title = measure.words
    return Kind(measure.accuracy, f"{title[0].upper()}{title[1:]}", means_it=lambda config: of(config) == measure)


def _on_other_clients(config: Mapping[str, Any]) -> Measure:
    """What `eval-accuracy` is on, unless it is drawn as validation."""
    return NOTHING if validation_of(config) == NOISY_VAL else on_clients_of(config)


CURVES = (
    Kind("test-accuracy", "Accuracy on clean test"),
    *(_measured(one, validation_of) for one in (CLEAN_VAL, CLEAN_TRAIN, NOISY_VAL)),
    *(_measured(one, _on_other_clients) for one in (HELD_OUT, CLEAN_SLICES)),
    Kind("own-accuracy-before", f"{OWN}, before they train"),
    Kind("own-accuracy-after", f"{OWN}, after they train"),
    Kind("train-loss", "Training loss on clients", "nats", 1.0),
    Kind("prediction-changes", "Predictions that changed since the last visit"),
)
DETECTION = (
    Kind("suspects-precision", "Suspected images: share that is mislabelled"),
    Kind("suspects-recall", "Mislabelled images: share that is suspected"),
    Kind("suspects-at-budget-precision", "As many suspects as labels are wrong: share that is mislabelled"),
    Kind("suspects-at-budget-fnr", "As many suspects as labels are wrong: share of mislabelled images that is missed"),
    Kind("noisy-clients-precision", "Clients found noisy: share that is"),
    Kind("noisy-clients-recall", "Noisy clients: share that is found"),
    Kind("noisy-clients", "Clients found noisy", "clients", 1.0),
    Kind("label-accuracy", "Given labels that are right"),
    Kind("corrected-label-accuracy", "Labels after correction that are right"),
)
# Likewise, of what is spread over clients: the key without ``-percentiles`` and ``-worst-tenth``.
ACROSS = (
    ("train-loss", "Training loss of clients", "nats", 1.0),
    ("agreement-before", "Agreement of the received model with clients' labels", "%", PERCENT),
    ("own-accuracy-before", "Accuracy of the received model on clients' own images", "%", PERCENT),
    ("own-accuracy-after", "Accuracy on clients' own images after training there", "%", PERCENT),
)
Number = float | None


def charts(kinds: Sequence[Kind], lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One chart for each kind of number that any of these runs has."""
    found = []
    for kind in kinds:
        meant = [replace(line, runs=tuple(run for run in line.runs if kind.means_it(run.config))) for line in lines]
        curves = [curve for line in meant if (curve := curve_of(line, kind.key, kind.factor))]
        if curves:
            found.append({"key": kind.key, "title": kind.title, "unit": kind.unit, "curves": curves})
    return found


def curve_of(line: Line, key: str, factor: float = 1.0) -> dict[str, Any] | None:
    """A number by round: mean, lowest and highest over the seeds that have it; None if none does."""
    values: dict[int, list[float]] = {}
    for run in line.runs:
        for entry in run.rounds:
            value: Any = entry.get(key)
            if is_number(value):
                values.setdefault(int(entry["round"]), []).append(factor * value)
    if not values:
        return None
    rounds = sorted(values)
    return {
        "label": line.label,
        "rounds": rounds,
        "mean": [_short(float(np.mean(values[one]))) for one in rounds],
        "low": [_short(min(values[one])) for one in rounds],
        "high": [_short(max(values[one])) for one in rounds],
        "seeds": [len(values[one]) for one in rounds],
    }


def charts_across_clients(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One chart for each number that any of these runs spreads over clients: median, and 10th to 90th percentile."""
    found = []
    for key, title, unit, factor in ACROSS:
        curves = [curve for line in lines if (curve := curve_across_clients(line, key, factor))]
        if curves:
            found.append({"key": key, "title": title, "unit": unit, "curves": curves})
    return found


def curve_across_clients(line: Line, key: str, factor: float = 1.0) -> dict[str, Any] | None:
    """By round the median client, the 10th and the 90th percentile, and the worst tenth, as means over seeds."""
    values: dict[int, list[list[float]]] = {}
    for run in line.runs:
        for entry in run.rounds:
            found: Any = entry.get(f"{key}-percentiles")
            worst: Any = entry.get(f"{key}-worst-tenth")
            if isinstance(found, list) and len(found) == len(PERCENTILES) and all(map(is_number, [*found, worst])):
                values.setdefault(int(entry["round"]), []).append([float(one) for one in (*found, worst)])
    if not values:
        return None
    rounds = sorted(values)
    table = [[_short(factor * float(one)) for one in np.mean(values[number], axis=0)] for number in rounds]
    low, _, middle, _, high, worst = (list(column) for column in zip(*table, strict=True))
    return {
        "label": line.label, "rounds": rounds, "mean": middle, "low": low, "high": high, "worst": worst,
        "seeds": [len(values[one]) for one in rounds],
    }  # fmt: skip


def recall_of(lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any] | None:
    """Per-class recall in percent after each run's last evaluated round, lines by classes, as means over seeds.

    Of more than `MANY_CLASSES` classes, the `WORST` with the lowest recall.
    """
    rows = [(line.label, _mean(found)) for line in lines if (found := _last(line, "per-class-recall", _recall))]
    if not rows:
        return None
    classes = len(rows[0][1])
    rows = [(label, row) for label, row in rows if len(row) == classes]
    shown = np.arange(classes)
    if classes > MANY_CLASSES:
        shown = np.argsort(_mean([row for _, row in rows]), kind="stable")[:WORST]
    return {
        "labels": [label for label, _ in rows],
        "classes": [class_name(names, int(one)) for one in shown],
        "percent": [[_short(PERCENT * float(row[one])) for one in shown] for _, row in rows],
        "of": classes,
    }


def confusions_of(lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any] | None:
    """By label the confusion matrix after the last evaluated round, as a mean over seeds of counts."""
    found = {line.label: _mean(tables) for line in lines if (tables := _last(line, "confusion-matrix", _table))}
    if not found:
        return None
    classes = len(next(iter(found.values())))
    return {
        "classes": [class_name(names, one) for one in range(classes)],
        "counts": {
            label: [[_short(float(count), 2) for count in row] for row in table]
            for label, table in found.items()
            if len(table) == classes
        },
    }


def class_name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _last(line: Line, key: str, read: Callable[[Any], np.ndarray | None]) -> list[np.ndarray]:
    """What each run's last round with this key has, if it is sound; those of other shapes than the first's left out."""
    arrays: list[np.ndarray] = []
    for run in line.runs:
        value = next((one[key] for one in reversed(run.rounds) if key in one), None)
        if (array := read(value)) is not None and (not arrays or array.shape == arrays[0].shape):
            arrays.append(array)
    return arrays


def _recall(value: Any) -> np.ndarray | None:
    if not isinstance(value, list) or not value or not all(one is None or is_number(one) for one in value):
        return None
    return np.array([np.nan if one is None else float(one) for one in value])


def _table(value: Any) -> np.ndarray | None:
    if not isinstance(value, list) or not 0 < len(value) <= MANY_CLASSES:
        return None
    if not all(isinstance(row, list) and len(row) == len(value) and all(map(is_number, row)) for row in value):
        return None
    return np.array(value, dtype=float)


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the first axis; where there is a number anywhere, over those."""
    stacked = np.stack(arrays)
    there = ~np.isnan(stacked)
    total = np.where(there, stacked, 0).sum(axis=0)
    mean: np.ndarray = np.divide(total, there.sum(axis=0), out=np.full(total.shape, np.nan), where=there.any(axis=0))
    return mean


def _short(value: float, digits: int = 4) -> Number:
    return round(value, digits) if np.isfinite(value) else None


def class_names(runs: Sequence[Run]) -> list[str]:
    """The names of the classes, from the first of these runs whose model tells; empty if none does."""
    from safetensors import SafetensorError, safe_open

    for run in runs:
        try:
            with safe_open(run.folder / "model.safetensors", framework="np") as file:
                names = json.loads((file.metadata() or {}).get("class-names", "[]"))
        except (OSError, ValueError, RecursionError, SafetensorError):
            continue
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    return []
