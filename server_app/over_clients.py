"""What the clients of one round report, in a few numbers: means, percentiles, and how the worst of them fare.

A mean hides the client whom the model fits badly. Percentiles and the worst tenth count every client once, however many
images it has.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from messages import keys

Reports = Iterable[Mapping[str, Any]]
PERCENTILES = (10, 25, 50, 75, 90)
# What is spread over clients, and whether a high value is a bad one.
SPREAD = {
    keys.TRAIN_LOSS: True,
    keys.AGREEMENT_BEFORE: False,
    keys.AGREEMENT_AFTER: False,
    keys.OWN_ACCURACY_BEFORE: False,
    keys.OWN_ACCURACY_AFTER: False,
}
# What is averaged over clients, and by which count of images: by that which the number is about.
MEANS = {
    **dict.fromkeys(
        (keys.LOSS_BEFORE, keys.LOSS_AFTER, keys.AGREEMENT_BEFORE, keys.AGREEMENT_AFTER, keys.CHANGED),
        keys.IMAGES,
    ),
    **dict.fromkeys(
        (keys.OWN_LOSS_BEFORE, keys.OWN_LOSS_AFTER, keys.OWN_ACCURACY_BEFORE, keys.OWN_ACCURACY_AFTER),
        keys.OWN_EXAMPLES,
    ),
}


def summary(reports: Reports) -> dict[str, float | list[float]]:
    """What a line of metrics.jsonl says of a round's clients: `means` and `spreads`."""
    reports = list(reports)
    return {**means(reports), **spreads(reports)}


def means(reports: Reports) -> dict[str, float]:
    """Of each number in `MEANS`, the mean over those clients that report it, weighted by images; absent if none does.

    Args:
        reports: Metrics of each usable reply to a train message, with `IMAGES`.
    """
    reports = list(reports)
    found = {name: _mean(reports, name, by) for name, by in MEANS.items()}
    return {name: value for name, value in found.items() if value is not None}


def _mean(reports: Sequence[Mapping[str, Any]], name: str, by: str) -> float | None:
    pairs = [(float(one[name]), float(one[by])) for one in reports if _is_number(one.get(name)) and one.get(by)]
    total = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / total if total else None


def spreads(reports: Reports) -> dict[str, float | list[float]]:
    """Of each number in `SPREAD`, ``NAME-percentiles`` and ``NAME-worst-tenth``; absent if no client reports it."""
    reports = list(reports)
    found: dict[str, float | list[float]] = {}
    for name, high_is_bad in SPREAD.items():
        values = [float(one[name]) for one in reports if _is_number(one.get(name))]
        if values:
            found[f"{name}-percentiles"] = percentiles(values)
            found[f"{name}-worst-tenth"] = worst_tenth(values, high_is_bad)
    return found


def percentiles(values: Sequence[float]) -> list[float]:
    """The `PERCENTILES` of at least one number, by linear interpolation between neighbours."""
    return [float(one) for one in np.percentile(values, PERCENTILES)]


def worst_tenth(values: Sequence[float], high_is_bad: bool) -> float:
    """The mean of the worst tenth of n numbers, which is ceil(n / 10) of them."""
    worst = sorted(values, reverse=high_is_bad)[: math.ceil(len(values) / 10)]
    return math.fsum(worst) / len(worst)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
