"""Whether a run ends before its last round: `patience`, `target-accuracy` and `max-hours` of the run config.

The rules look at what metrics.jsonl says of the rounds that are done, so a run that was killed and resumed ends after
the same round as one that was not. Only a round that is evaluated can be the last.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.run_config import RunConfig
from server_app.picking import LABEL_WAVE, final_after, picked, score_in, with_changes


@dataclass(frozen=True)
class Past:
    """The rounds of a run so far, as the rules see them.

    Attributes:
        last_round: 0 before the first.
        is_evaluated: Whether that one was.
        scores: By round, that by which the best model is picked (`server_app.picking`); of rounds that have one.
        seconds: Wall time of all rounds.
        changes: The last few values of prediction changes, of which the next score is made.
    """

    last_round: int = 0
    is_evaluated: bool = False
    scores: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    changes: tuple[float, ...] = ()

    def best(self, config: RunConfig) -> tuple[int, float] | None:
        """The round whose model is the best so far, and its score; None as long as no round has one."""
        found = picked(self.scores, final_after(config))
        return None if found is None else (found, self.scores[found])

    def reached(self, target: float) -> int | None:
        """The first round with this score; None if there is none, or no target."""
        return min((number for number, score in self.scores.items() if score >= target > 0), default=None)

    def after(self, line: Mapping[str, Any], config: RunConfig) -> "Past":
        """With one more round.

        Args:
            line: That of metrics.jsonl, whose numbers may be anything.
            config: The run's.
        """
        is_due = is_evaluated(line["round"], config)
        tested = line.get("test-accuracy") is not None  # also in what once was the last round of a run
        changes = with_changes(self.changes, line)
        scored = score_in(line, changes, config)
        return Past(
            line["round"],
            is_due if config.test_split == "none" else tested,
            {**self.scores, **({scored[0]: scored[1]} if scored else {})},
            self.seconds + seconds_in(line),
            changes,
        )


def is_evaluated(server_round: int, config: RunConfig) -> bool:
    """Whether the model after a round is evaluated, on the server and on clients."""
    return server_round % config.evaluate_every == 0 or server_round == config.num_server_rounds


def past_of(
    last_round: int,
    lines: Iterable[Mapping[str, Any]],
    config: RunConfig,
    best: tuple[int, float] | None = None,
) -> Past:
    """The past of a run that is resumed.

    Args:
        last_round: From which it goes on.
        lines: Those of metrics.jsonl, which may have been changed, and of which some may be lost.
        config: The run's, as it is now.
        best: Round and score of the best model, from the checkpoint.
    """
    past = Past()
    for line in lines:
        past = past.after(line, config)
    scores = dict(past.scores)
    if best and config.val_split == LABEL_WAVE:
        # What was passed over once stays so, although another `patience` would have taken it: its model is gone.
        scores = {number: min(score, best[1]) for number, score in scores.items() if number > best[0]}
    scores |= {best[0]: best[1]} if best else {}
    is_last = past.last_round == last_round  # otherwise its line is lost
    return Past(last_round, is_last and past.is_evaluated, scores, past.seconds, past.changes)


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
    best = past.best(config)
    if not config.patience or not best:
        return ""
    if config.val_split == LABEL_WAVE:  # rounds without a score say nothing about a minimum
        passed = sum(number > best[0] for number in past.scores)
    else:
        passed = max(past.scores) - best[0]
    if passed < config.patience:
        return ""
    rounds = f"{passed} {'round' if passed == 1 else 'rounds'}"
    if config.val_split == LABEL_WAVE:
        return f"predictions changed least in round {best[0]}, and not less in {rounds} since ('patience')"
    return f"no better validation accuracy for {rounds} ('patience')"


def _hours(past: Past, config: RunConfig) -> str:
    if not config.max_hours or past.seconds < 3600 * config.max_hours:
        return ""
    return f"its rounds have taken {past.seconds / 3600:.3g} hours ('max-hours')"


RULES: tuple[Callable[[Past, RunConfig], str], ...] = (_target, _patience, _hours)


def seconds_in(line: Mapping[str, Any]) -> float:
    """What a round took, to the millisecond as in the file; 0 if that is lost."""
    value: Any = line.get("seconds")
    sound = type(value) in (int, float) and 0 <= value <= 1e9
    return round(float(value), 3) if sound else 0.0
