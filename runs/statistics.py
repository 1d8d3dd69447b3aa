"""Means over seeds, and differences that are paired by seed."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Stat:
    """A column over the seeds of a line.

    Attributes:
        mean: In the column's unit.
        sd: Standard deviation of the sample; None of one seed.
        seeds: How many.
        difference: Mean over the seeds that both have of this line minus the baseline; None without a comparable
            baseline.
        interval: Half the width of its 95 % interval (Student's t); None of fewer than two pairs.
        pairs: How many seeds both have.
        by_seed: The numbers themselves.
    """

    mean: float
    sd: float | None
    seeds: int
    difference: float | None = None
    interval: float | None = None
    pairs: int = 0
    by_seed: dict[int, float] = field(default_factory=dict)


def stat_of(own: Mapping[int, float], baseline: Mapping[int, float] | None = None) -> Stat:
    """Statistics of a line.

    Args:
        own: By seed, at least one.
        baseline: By seed, those that may be compared with.
    """
    pairs = [own[seed] - baseline[seed] for seed in own.keys() & baseline.keys()] if baseline else []
    values = list(own.values())
    return Stat(
        mean=statistics.fmean(values),
        sd=spread(values),
        seeds=len(values),
        difference=statistics.fmean(pairs) if pairs else None,
        interval=half_width(pairs),
        pairs=len(pairs),
        by_seed=dict(own),
    )


def spread(values: Iterable[float]) -> float | None:
    """Standard deviation of a sample; None of fewer than two."""
    known = list(values)
    return statistics.stdev(known) if len(known) > 1 else None


def half_width(values: Iterable[float]) -> float | None:
    """Half the width of the 95 % interval of a sample's mean, t_{0.975, n-1} * sd / sqrt(n); None of fewer than two."""
    from scipy.special import stdtrit  # the quantile alone: scipy.stats takes a second to import

    known = list(values)
    sd = spread(known)
    if sd is None:
        return None
    return float(stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(len(known))
