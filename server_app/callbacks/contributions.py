"""Names, at the end of a run, the clients from which nothing ever came: the model knows nothing of their images."""

from collections import Counter
from collections.abc import Sequence
from logging import INFO, WARNING

from flwr.common import log

from data.text import one_line
from server_app.callbacks import Callback, History, RoundResult

NAMED = 12  # clients
REASON = 300  # characters of the last one


class Contributions(Callback):
    """Logs through Flower's logger."""

    def __init__(self, num_clients: int) -> None:
        self._num_clients = num_clients
        self._heard: set[int] = set()
        self._asked: Counter[int] = Counter()
        self._reasons: dict[int, str] = {}
        self._rounds = 0

    def on_start(self, history: History) -> None:
        self._heard = set(history.visits)
        for line in history.metrics:
            sampled = line.get("sampled-partitions")  # of a file that anybody may have changed
            self._asked.update(one for one in (sampled if isinstance(sampled, list) else []) if type(one) is int)
        self._rounds = history.last_round

    def after_round(self, result: RoundResult) -> None:
        self._rounds = result.server_round
        self._asked.update(result.sampled_partitions)
        self._heard |= set(result.sampled_partitions) - set(result.failures)
        self._reasons |= result.failures

    def on_end(self) -> None:
        if not self._rounds:
            return
        silent = sorted(set(self._asked) - self._heard)
        for client in silent[:NAMED]:
            times = f"{self._asked[client]} {'round' if self._asked[client] == 1 else 'rounds'}"
            reason = one_line(self._reasons.get(client, "failures.jsonl has the reasons."), REASON)
            log(WARNING, "Client %d was asked in %s and never contributed: %s", client, times, reason)
        if len(silent) > NAMED:
            log(WARNING, "... and %d more clients never contributed; failures.jsonl names them.", len(silent) - NAMED)
        left = sorted(set(range(self._num_clients)) - set(self._asked))
        if left:
            log(INFO, "Never sampled: %s.", _listed(left, self._num_clients))


def _listed(clients: Sequence[int], of: int) -> str:
    named = ", ".join(map(str, clients[:NAMED])) + (", ..." if len(clients) > NAMED else "")
    return f"{len(clients)} of {of} clients ({named})"
