"""By what the best model of a run is picked: `val-split` of the run config. Rounds get scores, of which more is better.

A score is a validation accuracy, on a clean list of the server's or on what clients hold out. With ``label-wave`` it
is one minus the share of training images whose predicted class has changed since their client's last visit, after Yuan,
Feng and Liu, "Early Stopping Against Label Noise Without Validation Data" (ICLR 2024): predictions change least before
a network begins to memorise wrong labels, and little again once it has memorised them all, so the first minimum counts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from config.choices import VAL_LISTS
from config.run_config import RunConfig
from messages import keys

LABEL_WAVE = "label-wave"
NOISY = "noisy"
VAL_ACCURACY = "val-accuracy"  # of metrics.jsonl
WINDOW = 3  # rounds over which changes are averaged, since those of single rounds jump
PATIENCE = 5  # rounds with a score after which a minimum counts as the first one if `patience` is 0


def score_in(line: Mapping[str, Any], changes: Sequence[float], config: RunConfig) -> tuple[int, float] | None:
    """Which round a line of metrics.jsonl gives a score, and that score; None if it gives none.

    Args:
        line: Its numbers may be anything.
        changes: With ``label-wave``, the last `WINDOW` values up to this line's.
        config: The run's.
    """
    if config.val_split == LABEL_WAVE:
        # A client compares the model that it receives, which is that of the round before, with the one before that.
        new = share(line.get(keys.CHANGED)) is not None and len(changes) == WINDOW
        return (line["round"] - 1, 1 - smoothed(changes)) if new else None
    accuracy = share(line.get(VAL_ACCURACY)) if config.val_split in (*VAL_LISTS, NOISY) else None
    return None if accuracy is None else (line["round"], accuracy)


def with_changes(changes: Sequence[float], line: Mapping[str, Any]) -> tuple[float, ...]:
    """The last `WINDOW` values of prediction changes, with that of one more line if it has one."""
    value = share(line.get(keys.CHANGED))
    return tuple(changes) if value is None else (*changes, value)[-WINDOW:]


def smoothed(changes: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(changes) / len(changes)


def final_after(config: RunConfig) -> float:
    """How many rounds must have a score that is not better for the best one to stay the best, whatever follows."""
    return config.patience or PATIENCE if config.val_split == LABEL_WAVE else math.inf


def picked(scores: Mapping[int, float], final: float = math.inf) -> int | None:
    """The round with the best score, of equal ones the first, None without any.

    Args:
        scores: By round.
        final: Once so many rounds with a score have not beaten the best, none that follows counts.
    """
    best: int | None = None
    passed = 0
    for server_round in sorted(scores):
        if best is None or scores[server_round] > scores[best]:
            best, passed = server_round, 0
            continue
        passed += 1
        if passed >= final:
            break
    return best


def share(value: Any) -> float | None:
    """A number from 0 to 1; None for everything else."""
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None
