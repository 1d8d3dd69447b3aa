"""The round loop: configure, send, aggregate, evaluate, and tell the callbacks."""

import contextlib
import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import log
from flwr.serverapp.strategy import Strategy

from config import RunConfig
from server_app.callbacks import Callback, RoundResult
from server_app.evaluation import TestSet
from server_app.grid import OrderedGrid
from server_app.roll_call import Member
from server_app.stopping import RunStoppedError
from task import derived_seed


@dataclass
class Replies:
    """Passes the good replies of one message exchange on and keeps the books on all of them."""

    partitions: dict[int, int]
    reference: ArrayRecord | None
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def good(self, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            partition = self.partitions[reply.metadata.src_node_id]
            problem = str(reply.error.reason) if reply.has_error() else self._problem(reply)
            if problem:
                self.failures[partition] = problem
                log(WARNING, "A reply is left out: %s", problem)
                continue
            record = next(iter(reply.content.metric_records.values()))
            self.metrics[partition] = {key: value for key, value in record.items() if isinstance(value, (int, float))}
            yield reply

    def _problem(self, reply: Message) -> str | None:
        """Why this reply must not reach the strategy, or None."""
        who = f"client {self.partitions[reply.metadata.src_node_id]}"
        metrics = next(iter(reply.content.metric_records.values()), MetricRecord())
        weight = metrics.get("num-examples")
        if not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            return f"{who}: 'num-examples' is {weight!r}; it must be a number above 0."
        if self.reference is None:
            return None
        arrays = reply.content.array_records.get("arrays", ArrayRecord())
        if arrays.keys() != self.reference.keys():
            return f"{who}: its arrays are not those of the model."
        for name, array in arrays.items():
            if tuple(array.shape) != tuple(self.reference[name].shape):
                return f"{who}: {name!r} has shape {tuple(array.shape)}, not {tuple(self.reference[name].shape)}."
            if not np.isfinite(array.numpy()).all():
                return f"{who}: {name!r} holds a value that is not finite."
        return None


@contextlib.contextmanager
def sampling_from(seed: int) -> Iterator[None]:
    """Flower's strategies sample clients with the global `random`; lend it our seed and put its state back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class RoundLoop:
    """Runs `config.num_server_rounds` rounds of any Flower strategy."""

    def __init__(
        self,
        grid: OrderedGrid,
        strategy: Strategy,
        members: Sequence[Member],
        test_set: TestSet,
        config: RunConfig,
        callbacks: Sequence[Callback],
    ) -> None:
        self._grid = grid
        self._strategy = strategy
        self._partitions = {member.node_id: member.partition_id for member in members}
        self._test_set = test_set
        self._config = config
        self._callbacks = callbacks

    def run(self, arrays: ArrayRecord) -> None:
        """Train from `arrays`; callbacks end in any case, so that a run that stops keeps what it has.

        Raises:
            RunStoppedError: No client gave a usable reply in some round.
        """
        try:
            for server_round in range(1, self._config.num_server_rounds + 1):
                arrays, result = self._round(server_round, arrays)
                for callback in self._callbacks:
                    callback.after_round(result)
        finally:
            for callback in self._callbacks:
                callback.on_end()

    def _round(self, server_round: int, arrays: ArrayRecord) -> tuple[ArrayRecord, RoundResult]:
        started = time.perf_counter()
        with sampling_from(derived_seed(self._config.seed, "sampled clients", server_round)):
            messages = list(self._strategy.configure_train(server_round, arrays, self._message_config(), self._grid))
        sampled = [self._partitions[message.metadata.dst_node_id] for message in messages]
        training = Replies(self._partitions, reference=arrays)
        replies = training.good(self._grid.send_and_receive(messages))
        del messages
        averaged, metrics = self._strategy.aggregate_train(server_round, replies)
        if averaged is None or metrics is None:
            first = next(iter(training.failures.values()), "no client was sampled.")
            raise RunStoppedError(f"round {server_round}: none of {len(sampled)} clients gave a usable reply; {first}")
        trained = time.perf_counter()
        test = self._test_set.evaluate(averaged)
        on_clients = self._evaluate_on_clients(server_round, averaged)
        seen = sum(values.get("images-seen", 0) for values in training.metrics.values())
        result = RoundResult(
            server_round=server_round,
            arrays=averaged,
            test=test,
            train_loss=float(metrics["train-loss"]),  # type: ignore[arg-type]
            num_examples=int(sum(values["num-examples"] for values in training.metrics.values())),
            seconds=time.perf_counter() - started,
            images_per_second=seen / (trained - started),
            sampled_partitions=sampled,
            failures=training.failures,
            on_clients=on_clients,
        )
        return averaged, result

    def _evaluate_on_clients(self, server_round: int, arrays: ArrayRecord) -> dict[str, float]:
        """Federated evaluation, if `fraction-evaluate` asks for it: weighted means over the sampled clients."""
        with sampling_from(derived_seed(self._config.seed, "evaluating clients", server_round)):
            config = self._message_config()
            messages = list(self._strategy.configure_evaluate(server_round, arrays, config, self._grid))
        if not messages:
            return {}
        books = Replies(self._partitions, reference=None)
        replies = list(books.good(self._grid.send_and_receive(messages)))
        metrics = self._strategy.aggregate_evaluate(server_round, replies)
        return {key: float(value) for key, value in (metrics or {}).items()}  # type: ignore[arg-type]

    def _message_config(self) -> ConfigRecord:
        return ConfigRecord(dict(self._config.to_flat()))
