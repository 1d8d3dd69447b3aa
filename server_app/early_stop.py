"""Whether a run ends before its last round: `patience`, `target-accuracy` and `max-hours` of the run config.

The rules look at what metrics.jsonl says of the rounds that are done, so a run that was killed and resumed ends after
the same round as one that was not. Only a round that was evaluated can be the last.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.run_config import RunConfig


@dataclass(frozen=True)
class Past:
    """The rounds of a run so far, as the rules see them.

    Attributes:
        last_round: 0 before the first.
        is_evaluated: Whether that one was.
        accuracies: On validation, by round; of rounds that were evaluated.
        seconds: Wall time of all rounds.
    """

    last_round: int = 0
    is_evaluated: bool = False
    accuracies: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best(self) -> int | None:
        """The round with the best accuracy, of equal ones the first."""
        return max(self.accuracies, key=lambda number: (self.accuracies[number], -number), default=None)

    def reached(self, target: float) -> int | None:
        """The first round with this accuracy; None if there is none, or no target."""
        return min((number for number, accuracy in self.accuracies.items() if accuracy >= target > 0), default=None)

    def after(self, server_round: int, is_evaluated: bool, accuracy: float | None, seconds: float) -> "Past":
        """With one more round, and its accuracy on validation if it has one."""
        more = {} if accuracy is None else {server_round: accuracy}
        # To the millisecond, as in the file.
        return Past(server_round, is_evaluated, {**self.accuracies, **more}, self.seconds + round(seconds, 3))


def past_of(last_round: int, lines: Iterable[Mapping[str, Any]], best: tuple[int, float] | None = None) -> Past:
    """The past of a run that is resumed.

    Args:
        last_round: From which it goes on.
        lines: Those of metrics.jsonl, which may have been changed, and of which some may be lost.
        best: Round and accuracy of the best model on validation, from the checkpoint.
    """
    past = Past()
    for line in lines:
        accuracy, seconds = line.get("val-accuracy"), line.get("seconds")
        is_evaluated = line.get("test-accuracy") is not None
        past = past.after(line["round"], is_evaluated, _number(accuracy), _number(seconds) or 0.0)
    accuracies = {**past.accuracies, **({best[0]: best[1]} if best else {})}
    return Past(last_round, past.last_round == last_round and past.is_evaluated, accuracies, past.seconds)


def why_over(past: Past, config: RunConfig) -> str:
    """Why a run ends here and not in its last round, in one sentence; empty if it goes on, or that was the last."""
    if not past.is_evaluated or past.last_round >= config.num_server_rounds:
        return ""
    why = next((found for rule in RULES if (found := rule(past, config))), "")
    return why and f"Stopped after round {past.last_round} of {config.num_server_rounds}: {why}."


def _target(past: Past, config: RunConfig) -> str:
    number = past.reached(config.target_accuracy)
    if number is None:
        return ""
    return f"validation accuracy reached {config.target_accuracy:g} in round {number} ('target-accuracy')"


def _patience(past: Past, config: RunConfig) -> str:
    passed = past.last_round - past.best if past.best else 0
    if not config.patience or passed < config.patience:
        return ""
    return f"no better validation accuracy for {passed} {'round' if passed == 1 else 'rounds'} ('patience')"


def _hours(past: Past, config: RunConfig) -> str:
    if not config.max_hours or past.seconds < 3600 * config.max_hours:
        return ""
    return f"its rounds have taken {past.seconds / 3600:.3g} hours ('max-hours')"


RULES: tuple[Callable[[Past, RunConfig], str], ...] = (_target, _patience, _hours)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1e9 else None
