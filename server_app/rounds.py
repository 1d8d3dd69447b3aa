"""The round loop: configure, send, aggregate, evaluate, and call the callbacks."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp.strategy import Strategy

from config.run_config import RunConfig
from learning.server_half import ServerHalf
from messages import keys
from methods.scores import image_scores
from server_app.callbacks import Callback, History, RoundResult, RunState
from server_app.clean_sets import CleanSet
from server_app.grid import OrderedGrid
from server_app.replies import Replies
from server_app.roll_call import Member
from server_app.stopping import RunStoppedError
from server_app.strategy import state_of
from task import derived_seed

LOST_STATE = (
    "Client %d has lost its state from round %d and starts afresh, or from an older state if that one is damaged;"
    " clients that move between machines need a 'state-dir' that these share."
)
RETURN_SECONDS = 30.0  # how long a lost node may take to come back; a restarted one reconnects within seconds


@contextlib.contextmanager
def sampling_from(seed: int) -> Iterator[None]:
    """Flower's strategies sample clients with the global `random`: seed it, and restore its state afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@dataclass(frozen=True)
class Sent:
    """A round whose messages have been sent.

    Attributes:
        server_round: From 1.
        messages: As the strategy made them.
        replies: An iterator that waits for each reply.
        tally: Which of these replies were usable.
        started: By `time.perf_counter`.
        deadline: When the round continues without late replies, by `time.monotonic`.
    """

    server_round: int
    messages: list[Message]
    replies: Iterable[Message]
    tally: Replies
    started: float
    deadline: float


class RoundLoop:
    """Runs `config.num_server_rounds` rounds of any Flower strategy."""

    def __init__(
        self,
        grid: OrderedGrid,
        strategy: Strategy,
        members: Sequence[Member],
        clean_sets: Mapping[str, CleanSet],
        config: RunConfig,
        callbacks: Sequence[Callback],
        on_failure: Callable[[int, int, str], None] = lambda server_round, partition, reason: None,
        half: ServerHalf | None = None,
        visit: Mapping[str, str] | None = None,
    ) -> None:
        """Set up a run.

        Args:
            grid: Reaches the members.
            strategy: Of Flower's interface.
            members: In partition order.
            clean_sets: ``test``, and ``validation`` if there is one.
            config: The run's.
            callbacks: Called in this order.
            on_failure: Called with round, partition and reason of each training reply that is left out.
            half: The method's server half.
            visit: What every client is told about the run, see `client_app.client_state`.
        """
        self._grid = grid
        self._strategy = strategy
        self._members = {member.node_id: member for member in members}
        self._clean_sets = clean_sets
        self._config = config
        self._callbacks = callbacks
        self._on_failure = on_failure
        self._half = half or ServerHalf()
        self._visit = dict(visit or {})
        self._visits: dict[int, int] = {}  # by partition, the round of its last good reply
        # Otherwise a strategy could not use evaluation results when it configures the next round.
        self._overlap = config.fraction_evaluate == 0

    def run(self, arrays: ArrayRecord, history: History | None = None) -> None:
        """Train from `arrays`, after the rounds of `history`.

        Callbacks always get their `on_end`, so that finished rounds are kept. `arrays` and all global models but the
        last are emptied.

        Raises:
            RunStoppedError: A round had no usable reply, or a callback stopped the run.
        """
        history = history or History()
        self._visits = dict(history.visits)
        for callback in self._callbacks:
            callback.on_start(history)
        try:
            sent, done = None, time.perf_counter()
            for server_round in range(history.last_round + 1, self._config.num_server_rounds + 1):
                sent = sent or self._send(server_round, arrays)
                previous = arrays
                arrays, metrics = self._aggregate(sent)
                state = RunState(state_of(self._strategy)(), self._half.state(), dict(self._visits))
                trained = time.perf_counter()
                # Clients train the next round while the server evaluates this one, unless `callbacks.failure_gate` may
                # still stop the run.
                early = self._overlap and not sent.tally.failures and server_round < self._config.num_server_rounds
                following = self._send(server_round + 1, arrays) if early else None
                result = self._evaluate(sent, arrays, metrics, state, trained, done)
                sent, done = following, done + result.seconds
                for callback in self._callbacks:
                    callback.after_round(result)
                if previous is not arrays:
                    previous.clear()  # it is part of reference cycles, see `take_arrays`
        finally:
            for callback in self._callbacks:
                callback.on_end()

    def _send(self, server_round: int, arrays: ArrayRecord) -> Sent:
        started, limit = time.perf_counter(), self._config.round_timeout or None
        deadline = time.monotonic() + limit if limit else math.inf
        self._half.before_round(server_round, arrays, self._ask)
        with sampling_from(derived_seed(self._config.seed, "sampled clients", server_round)):
            messages = list(self._strategy.configure_train(server_round, arrays, self._message_config(), self._grid))
        for message in messages:
            self._address(message)
        tally = Replies(self._members, arrays, lambda *failure: self._on_failure(server_round, *failure))
        replies = self._grid.send_and_receive(messages, timeout=limit)
        return Sent(server_round, messages, replies, tally, started, deadline)

    def _aggregate(self, sent: Sent) -> tuple[ArrayRecord, MetricRecord]:
        averaged, metrics = self._strategy.aggregate_train(sent.server_round, self._train_replies(sent))
        if averaged is None or metrics is None:
            first = next(iter(sent.tally.failures.values()), "no client was sampled.")
            raise RunStoppedError(
                f"round {sent.server_round}: none of {len(sent.messages)} clients gave a usable reply; {first}"
            )
        for partition, values in sent.tally.metrics.items():
            if values.get(keys.STATE_LOST):
                log(WARNING, LOST_STATE, partition, self._visits.get(partition, 0))
            self._visits[partition] = sent.server_round
        self._half.heard(sent.server_round, sent.tally.metrics)
        return averaged, metrics

    def _address(self, message: Message) -> None:
        """Add what only this client gets; strategies share one content among all messages."""
        partition = self._members[message.metadata.dst_node_id].partition_id
        content = RecordDict(dict(message.content))
        content[keys.VISIT] = ConfigRecord({**self._visit, keys.LAST_ROUND: self._visits.get(partition, 0)})
        if told := self._half.tell(partition):
            content[keys.METHOD] = ConfigRecord({**told})
        message.content = content

    def _ask(self, action: str, arrays: ArrayRecord) -> dict[int, dict[str, Any]]:
        """Send the model to all clients with one of their actions; the metrics of usable replies, by partition."""
        content = RecordDict({keys.ARRAYS: arrays, keys.CONFIG: self._message_config()})
        messages = [Message(content, node_id, f"{MessageType.QUERY}.{action}") for node_id in self._members]
        tally = Replies(self._members, reference=None)
        limit = self._config.round_timeout or None
        for _ in tally.good(self._grid.send_and_receive(messages, timeout=limit), list(self._members)):
            pass
        return tally.metrics

    def _evaluate(
        self,
        sent: Sent,
        averaged: ArrayRecord,
        metrics: MetricRecord,
        state: RunState,
        trained: float,
        before: float,
    ) -> RoundResult:
        """Evaluate a round, whose model was ready at `trained`; the round before it ended at `before`."""
        began = time.perf_counter()
        quality = {name: clean_set.evaluate(averaged) for name, clean_set in self._clean_sets.items()}
        on_clients = self._evaluate_on_clients(sent.server_round, averaged)
        ended = time.perf_counter()
        reports = sent.tally.metrics.values()
        seen = int(sum(values.get(keys.IMAGES_SEEN, 0) for values in reports))
        return RoundResult(
            server_round=sent.server_round,
            arrays=averaged,
            test=quality["test"],
            validation=quality.get("validation"),
            train_loss=float(metrics[keys.TRAIN_LOSS]),  # type: ignore[arg-type]
            num_examples=int(sum(values[keys.NUM_EXAMPLES] for values in reports)),
            seconds=ended - before,
            slowest_client_seconds=max(values.get(keys.VISIT_SECONDS, 0.0) for values in reports),
            slowest_training_seconds=max(values.get(keys.TRAIN_SECONDS, 0.0) for values in reports),
            evaluation_seconds=ended - began,
            images_seen=seen,
            images_per_second=seen / (trained - sent.started),
            sampled_partitions=[self._members[message.metadata.dst_node_id].partition_id for message in sent.messages],
            failures=sent.tally.failures,
            on_clients=on_clients,
            of_strategy={
                key: float(value)
                for key, value in metrics.items()
                if isinstance(value, (int, float)) and not any(key in report for report in reports)
            },
            of_method={**self._half.metrics(sent.server_round), **image_scores(reports)},
            state=state,
        )

    def _train_replies(self, sent: Sent) -> Iterator[Message]:
        """Usable replies in the order of the messages, then those of clients that failed and were retried."""
        tally = sent.tally
        yield from tally.good(sent.replies, [message.metadata.dst_node_id for message in sent.messages])
        again = [
            Message(message.content, message.metadata.dst_node_id, message.metadata.message_type)
            for message in sent.messages
            if (partition := self._members[message.metadata.dst_node_id].partition_id) in tally.failures
            and partition not in tally.refused
        ]
        again = self._reachable(again, tally.lost, sent.deadline) if again else []
        left = sent.deadline - time.monotonic()
        if again and left > 0:
            log(INFO, "Retrying %d %s.", len(again), "client" if len(again) == 1 else "clients")
            replies = self._grid.send_and_receive(again, timeout=left if left < math.inf else None)
            yield from tally.good(replies, [message.metadata.dst_node_id for message in again])

    def _reachable(self, messages: list[Message], lost: set[int], deadline: float) -> list[Message]:
        """Those whose node is connected, after lost nodes had some time to come back."""
        until = min(deadline, time.monotonic() + RETURN_SECONDS)
        waited_for = {message.metadata.dst_node_id for message in messages} & lost
        while not waited_for <= (connected := set(self._grid.get_node_ids())) and time.monotonic() < until:
            self._grid.pause(1.0)
        return [message for message in messages if message.metadata.dst_node_id in connected]

    def _evaluate_on_clients(self, server_round: int, arrays: ArrayRecord) -> dict[str, float]:
        """Federated evaluation, if `fraction-evaluate` is above 0: weighted means over the sampled clients."""
        with sampling_from(derived_seed(self._config.seed, "evaluating clients", server_round)):
            config = self._message_config()
            messages = list(self._strategy.configure_evaluate(server_round, arrays, config, self._grid))
        if not messages:
            return {}
        tally = Replies(self._members, reference=None)
        asked = [message.metadata.dst_node_id for message in messages]
        limit = self._config.round_timeout or None
        replies = list(tally.good(self._grid.send_and_receive(messages, timeout=limit), asked))
        metrics = self._strategy.aggregate_evaluate(server_round, replies)
        return {key: float(value) for key, value in (metrics or {}).items()}  # type: ignore[arg-type]

    def _message_config(self) -> ConfigRecord:
        record = ConfigRecord(dict(self._config.to_flat()))
        if sites := [str(member.node_id) for member in self._members.values() if member.own_folder]:
            record[keys.SITES] = sites
        return record
