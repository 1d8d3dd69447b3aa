"""What a run reached, as one number for each column of a table.

Accuracies are on clean test, in percent; those of a run without a test set on what `Run.measure` says. In three of them
that chooses nothing: that of the last round, the mean of the last rounds, and that of the round that `val-split` picks.
``best-on-test`` is of the round that clean test itself picked.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from config.measure import CLEAN_TEST, validation_of
from config.run_config import ConfigError, RunConfig
from runs.run import Run
from server_app.early_stop import past_of
from server_app.picking import LABEL_WAVE

MOST_LAST, LAST_SHARE = 10, 4  # see `last_rounds`


@dataclass(frozen=True)
class Column:
    """A number of each run.

    Attributes:
        key: As it is named after ``--columns``.
        title: As it is shown.
        unit: ``%``, ``s``, ...; empty for plain numbers.
        digits: After the decimal point.
        picked_on_test: Whether clean test itself decided which round it shows: not an estimate of anything.
    """

    key: str
    title: str
    unit: str = ""
    digits: int = 2
    picked_on_test: bool = False


COLUMNS = {
    column.key: column
    for column in (
        Column("last", "last round", "%"),
        Column("last10", "mean of the last 10 rounds", "%"),  # `runs.table` names another number where there are fewer
        Column("picked", "round picked on validation", "%"),
        Column("best-on-test", "best round (picked on test)", "%", picked_on_test=True),
        Column("macro-f1", "macro F1, last round", "%"),
        Column("worst-class", "recall of the worst class, last round", "%"),
        Column("last-loss", "loss, last round", "nats", 3),
        Column("corrected-label-accuracy", "corrected labels that are right", "%"),
        Column("suspects-precision", "precision of suspected images", "%"),
        Column("suspects-recall", "recall of suspected images", "%"),
        Column("suspects-at-budget-precision", "precision of as many suspects as labels are wrong", "%"),
        Column("suspects-at-budget-fnr", "false-negative rate of as many suspects as labels are wrong", "%"),
        Column("noisy-clients-precision", "precision of noisy clients", "%"),
        Column("noisy-clients-recall", "recall of noisy clients", "%"),
        Column("seconds", "wall time", "s", 0),
        Column("minutes", "wall time", "min", 1),
        Column("images", "images seen in training", "", 0),
        Column("bytes", "sent and returned in training", "B", 0),
        Column("bytes-per-round", "sent and returned in training, per round", "B", 0),
        Column("own-before", "clients' own held-out images, before local training", "%"),
        Column("own-after", "clients' own held-out images, after local training", "%"),
        Column("own-gain", "gain of local training on clients' held-out images", "points"),
        Column("own-worst-tenth", "worst tenth of clients on their held-out images, before local training", "%"),
        Column("prediction-changes", "predictions changed since the last visit", "%"),
        Column("rounds", "rounds", "", 0),
        Column("rounds-to-target", "rounds to the target", "", 1),
    )
}
DEFAULT = ("last", "last10", "picked", "best-on-test")
WITHOUT = ("prediction-changes", "rounds")  # the default ones of runs that were measured on nothing
PICKING = ("val-split", "patience")  # keys that decide which round is picked
TARGET = "rounds-to-target"  # the only column that a complete run may miss although it was asked for rightly


def scores(run: Run, target: float | None = None) -> dict[str, float]:
    """All that is known of a run, by the column's key; what is unknown or not finite is missing.

    Args:
        run: Complete, or the numbers are those of its rounds so far.
        target: Accuracy, 0 to 1, for ``rounds-to-target``.
    """
    found = {**_accuracies(run), **_of_last_round(run), **_judgements(run), **_on_own(run), **_costs(run)}
    reached = None if target is None else rounds_to(run, target)
    if reached is not None:
        found[TARGET] = reached
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}


def last_rounds(run: Run) -> int:
    """How many rounds ``last10`` looks at: ten, or the last quarter, rounded up, of runs of fewer than 37.

    It depends on the rounds that were asked for alone, so that all runs with the same `num-server-rounds` are treated
    alike, whether or not a rule stopped them early.
    """
    return min(MOST_LAST, math.ceil((run.asked or run.done) / LAST_SHARE))


def rounds_to(run: Run, target: float) -> int | None:
    """The first evaluated round with at least this accuracy; None if there is none."""
    return next((number for number, accuracy in run.accuracies.items() if accuracy >= target), None)


def images_seen(run: Run) -> float | None:
    """Images that went through a training step, over all rounds; None if a round does not say."""
    return _sum(run, "images-seen")


def picked_round(run: Run) -> int | None:
    """The round whose model is the best by `val-split`, as `best.safetensors` is; None if there is none.

    With ``label-wave`` that is by the run's present `patience`, if it was another one before a resume.
    """
    try:
        config = RunConfig.from_flat({key: run.config[key] for key in PICKING if key in run.config})
    except ConfigError:  # edited by hand
        return None
    best = past_of(run.done, run.rounds, config).best(config)
    return best and best[0]


def picked_by(run: Run) -> str:
    """What picks that round, in words."""
    return LABEL_WAVE if run.config.get("val-split") == LABEL_WAVE else "validation"


def how_picked(runs: Iterable[Run]) -> str:
    """``picked on validation``, or what is right of the rounds that are picked in these runs."""
    by = {picked_by(run) for run in runs if picked_round(run)} or {"validation"}
    words = {"validation": "on validation", LABEL_WAVE: "by label-wave"}
    return f"picked {' or '.join(text for name, text in words.items() if name in by)}"


def _accuracies(run: Run) -> dict[str, float | None]:
    accuracy = {number: 100 * value for number, value in run.accuracies.items()}
    if not accuracy:
        return {}
    last = max(accuracy)
    window = [value for number, value in accuracy.items() if number > last - last_rounds(run)]
    picked = picked_round(run)
    by_itself = run.measure == validation_of(run.config)  # which then is no estimate of anything
    return {
        "last": accuracy[last],
        "last10": math.fsum(window) / len(window),
        "picked": None if picked is None or by_itself else accuracy.get(picked),
        "best-on-test": max(accuracy.values()) if run.measure == CLEAN_TEST else None,
    }


def _of_last_round(run: Run) -> dict[str, float | None]:
    """Of the last round that was evaluated."""
    evaluated = max(run.accuracies, default=0) + run.measure.lag
    line = next((one for one in run.rounds if one["round"] == evaluated), {})
    recalls = line.get("per-class-recall")
    known = [value for value in recalls if _is_number(value)] if isinstance(recalls, list) else []
    return {
        "macro-f1": _percent(line, "macro-f1"),
        "worst-class": 100 * min(known) if known else None,
        "last-loss": _number(line, run.measure.loss),
    }


def _judgements(run: Run) -> dict[str, float | None]:
    """How well a method told right from wrong, in the last round that says so."""
    keys = (
        "corrected-label-accuracy", "suspects-precision", "suspects-recall", "suspects-at-budget-precision",
        "suspects-at-budget-fnr", "noisy-clients-precision", "noisy-clients-recall",
    )  # fmt: skip
    return {key: next(_percents(run, key), None) for key in keys}


def _on_own(run: Run) -> dict[str, float | None]:
    """Of the clients of the last round that has it, on what they hold out."""
    keys = ("own-accuracy-before", "own-accuracy-after", "own-accuracy-before-worst-tenth", "prediction-changes")
    before, after, worst, changes = (next(_percents(run, key), None) for key in keys)
    return {
        "own-before": before,
        "own-after": after,
        "own-gain": None if before is None or after is None else after - before,
        "own-worst-tenth": worst,
        "prediction-changes": changes,
    }


def _costs(run: Run) -> dict[str, float | None]:
    seconds, travelled = _sum(run, "seconds"), _bytes(run)
    return {
        "seconds": seconds,
        "minutes": None if seconds is None else seconds / 60,
        "images": images_seen(run),
        "bytes": travelled,
        "bytes-per-round": None if travelled is None else travelled / len(run.rounds),
        "rounds": run.done or None,
    }


def _bytes(run: Run) -> float | None:
    """Bytes of arrays that training took: to clients, back from them, and with a method's questions.

    None if a round does not say, as in folders of earlier versions.
    """
    sent, received = _sum(run, "sent-bytes"), _sum(run, "received-bytes")
    if sent is None or received is None:
        return None
    return sent + received + math.fsum(_number(line, "query-bytes") or 0.0 for line in run.rounds)


def _sum(run: Run, key: str) -> float | None:
    values = [_number(line, key) for line in run.rounds]
    known = [value for value in values if value is not None]
    return math.fsum(known) if known and len(known) == len(values) else None


def _percents(run: Run, key: str) -> Iterator[float]:
    """The last one first."""
    for line in reversed(run.rounds):
        if (value := _percent(line, key)) is not None:
            yield value


def _percent(line: dict[str, Any], key: str) -> float | None:
    value = _number(line, key)
    return None if value is None else 100 * value


def _number(line: dict[str, Any], key: str) -> float | None:
    value = line.get(key)
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # neither NaN nor a whole number beyond it
