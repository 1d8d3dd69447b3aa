"""Logs a table with one row per round and the time left: a progress bar would not survive Flower's log relay. What a
round sends and receives is a line of its own, after the first round and whenever it changes. Without a test set the
table shows what there is instead, and the log says so at the start.

No line has more than `WIDTH` characters, so that it fits into 80 columns behind what Flower puts before each line.
"""

import math
from logging import INFO
from textwrap import wrap

from flwr.common import log

from config.measure import CLEAN_TEST, Measure
from messages import keys
from server_app.callbacks import Callback, History, RoundResult
from server_app.callbacks.metrics_file import as_json
from server_app.early_stop import seconds_in
from server_app.picking import LABEL_WAVE, share
from server_app.traffic import in_words

WIDTH = 68  # characters
TITLED = 20  # rows between two headings
NONE = "-"  # in a round that is not evaluated
PAGE = "docs/no-clean-data.md"
HEADINGS = {  # of at most 8 characters
    "test-accuracy": "accuracy",
    "val-accuracy": "val acc.",
    "eval-accuracy": "eval acc",
    "own-accuracy-before": "own acc.",
    keys.CHANGED: "changes",
}


class Progress(Callback):
    """Logs through Flower's logger."""

    def __init__(
        self,
        num_rounds: int,
        evaluate_every: int = 1,
        max_hours: float = 0.0,
        measure: Measure = CLEAN_TEST,
        val_split: str = "",
    ) -> None:
        """Set up the table.

        Args:
            num_rounds: The time left is that of all rounds, or until the limit: nobody knows what else will end a run.
            evaluate_every: Rounds that are multiples of this are evaluated, and the last.
            max_hours: The limit; 0: none.
            measure: Whose accuracy the table shows; if nothing is measured, it shows how many predictions change.
            val_split: By what the best model is picked.
        """
        self._num_rounds = num_rounds
        self._limit = 3600 * max_hours or math.inf
        self._measure, self._wave = measure, val_split == LABEL_WAVE
        self._shows_changes = self._wave and not measure
        self._key = keys.CHANGED if self._shows_changes else measure.accuracy
        self._passed = 0.0
        self._recent = max(5, evaluate_every)  # rounds that predict the next ones
        self._best: tuple[float, int] | None = None
        self._durations: list[float] = []
        self._traffic = ""

    def on_start(self, history: History) -> None:
        self._passed = sum(map(seconds_in, history.metrics))
        for line in history.metrics:
            self._note(share(line.get(self._key)), line["round"])
        self._note_pick(history.best)
        for sentence in about_measure(self._measure, self._wave):
            log(INFO, "%s", sentence)
        if history.last_round:
            log(INFO, "Resuming after round %d of %d.", history.last_round, self._num_rounds)

    def after_round(self, result: RoundResult) -> None:
        values = as_json(result)
        shown, loss = share(values.get(self._key)), values.get(self._measure.loss)
        self._note(shown, result.server_round)
        self._note_pick(result.pick)
        if len(self._durations) % TITLED == 0:
            heading = HEADINGS.get(self._key, "accuracy")
            log(INFO, "%s", self._row("round", heading, "best (round)", "loss (training)", "seconds", "left"))
        self._durations.append(result.seconds)
        # The first round also starts actors and decodes images; later ones predict the rest better.
        recent = self._durations[1:][-self._recent :] or self._durations
        self._passed += result.seconds
        left = (self._num_rounds - result.server_round) * sum(recent) / len(recent)
        left = 0.0 if result.ends else min(left, max(0.0, self._limit - self._passed))
        width = len(str(self._num_rounds))
        row = self._row(
            f"{result.server_round}/{self._num_rounds}",
            NONE if shown is None else _percent(shown),
            f"{_percent(self._best[0])} ({-self._best[1]:>{width}})" if self._best else NONE,
            f"{NONE if loss is None else _loss(loss)} ({_loss(result.train_loss):>6})",
            f"{result.seconds:.1f}",
            clock(left),
        )
        log(INFO, "%s", row)
        if result.failures:
            failed, sampled = len(result.failures), len(result.sampled_partitions)
            log(INFO, "%d of %d clients gave no usable reply; failures.jsonl has the reasons.", failed, sampled)
        self._say_traffic(result)

    def _say_traffic(self, result: RoundResult) -> None:
        """What travelled, unless it is what the last such line says, or differs because clients failed."""
        clients, traffic = len(result.sampled_partitions), result.traffic.training
        sent, received = in_words(traffic.sent), in_words(traffic.received)
        said = f"sent {sent} to {clients} {'client' if clients == 1 else 'clients'} and received {received}"
        if traffic.sent and said != self._traffic and not (self._traffic and result.failures):
            self._traffic = said
            log(INFO, "Round %d %s.", result.server_round, said)

    def _note(self, accuracy: float | None, server_round: int) -> None:
        """Remember the best accuracy and the first round that had it; a round without one was not evaluated."""
        if accuracy is not None and not self._shows_changes:
            new = accuracy, self._measure.lag - server_round
            self._best = max(self._best or new, new)

    def _note_pick(self, pick: tuple[int, float] | None) -> None:
        """Where nothing is measured, the best round is the one that is picked, with how much predictions changed."""
        if self._shows_changes and pick:
            self._best = 1 - pick[1], -pick[0]

    def _row(self, server_round: str, accuracy: str, best: str, loss: str, seconds: str, left: str) -> str:
        width = len(str(self._num_rounds))
        return (
            f"{server_round:>{max(5, 2 * width + 1)}}  {accuracy:>8}  {best:>{max(12, 9 + width)}}  {loss:>15}"
            f" {seconds:>7}  {left:>7}"
        )


def about_measure(measure: Measure, wave: bool) -> list[str]:
    """What there is instead of a test set, and by what the best model is picked if that is no accuracy; often nothing.

    Lines of at most `WIDTH` characters.

    Args:
        measure: What accuracies are on.
        wave: Whether the best model is picked by prediction changes.
    """
    said = []
    if not measure:
        said.append("No test set, and nothing else says how good the model is.")
    elif measure is not CLEAN_TEST:
        late = ", and a round late" if measure.lag else ""
        said.append(f"No test set: '{HEADINGS[measure.accuracy]}' is on {measure.name}{late}.")
    if wave:
        said.append("The best model is picked by the first minimum of prediction changes.")
    if said:
        said.append(f"See {PAGE}.")
    return [line for sentence in said for line in wrap(sentence, WIDTH)]


def _loss(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.0f}" if value < 1e6 else f"{value:.0e}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%".replace("100.00", "100.0")


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
