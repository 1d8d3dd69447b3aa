"""Logs one aligned line per round, with the time left: a progress bar would not survive Flower's log relay."""

from logging import INFO

from flwr.common import log

from server_app.callbacks import Callback, History, RoundResult


class Progress(Callback):
    """Logs through Flower's logger."""

    def __init__(self, num_rounds: int) -> None:
        self._num_rounds = num_rounds
        self._best = (0.0, 0)
        self._durations: list[float] = []

    def on_start(self, history: History) -> None:
        for line in history.metrics:
            self._best = max(self._best, (line["test-accuracy"], -line["round"]))
        if history.last_round:
            log(INFO, "Resuming after round %d of %d.", history.last_round, self._num_rounds)

    def after_round(self, result: RoundResult) -> None:
        self._best = max(self._best, (result.test.accuracy, -result.server_round))
        self._durations.append(result.seconds)
        # The first round also starts actors and decodes images; later ones predict the rest better.
        recent = self._durations[1:][-5:] or self._durations
        left = (self._num_rounds - result.server_round) * sum(recent) / len(recent)
        width = len(str(self._num_rounds))
        failed = f"  {len(result.failures)} failed" if result.failures else ""
        log(
            INFO,
            "round %*d/%d   test accuracy %5.2f %%   best %5.2f %% (round %*d)   test loss %6.3f   train loss %6.3f"
            "   %6.1f s   %5.0f images/s   %s left%s",
            width,
            result.server_round,
            self._num_rounds,
            100 * result.test.accuracy,
            100 * self._best[0],
            width,
            -self._best[1],
            result.test.loss,
            result.train_loss,
            result.seconds,
            result.images_per_second,
            clock(left),
            failed,
        )


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
