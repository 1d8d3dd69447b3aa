"""Stops a run whose clients fail too often, before a model that few of them trained passes for a result."""

from server_app.callbacks import Callback, RoundResult
from server_app.stopping import RunStoppedError


class FailureGate(Callback):
    """Must come before the callbacks that write: a round that does not pass is repeated after a resume."""

    def __init__(self, min_reply_fraction: float) -> None:
        self._min = min_reply_fraction

    def after_round(self, result: RoundResult) -> None:
        """Raises RunStoppedError if fewer than `min_reply_fraction` of the sampled clients gave a usable reply."""
        asked = len(result.sampled_partitions)
        usable = asked - len(result.failures)
        if usable < self._min * asked - 1e-9:  # 0.55 * 100 is 55.00000000000001
            partition, reason = min(result.failures.items())
            raise RunStoppedError(
                f"round {result.server_round}: only {usable} of {asked} clients gave a usable reply, fewer than"
                f" 'min-reply-fraction' {self._min:g} requires; client {partition} reported: {reason.splitlines()[0]}"
            )
