"""Everything in a run that is not the algorithm: one file per concern, with three hooks each."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from config.run_config import RunConfig
from learning.evaluation import Evaluation
from server_app.early_stop import Past, past_of
from server_app.traffic import RoundTraffic


@dataclass(frozen=True)
class RunState:
    """What a resumed run needs from earlier rounds, besides the model.

    Attributes:
        strategy: The strategy's state; empty if it has none.
        method: The state of the method's server half.
        visits: By partition, the round of its last good reply.
    """

    strategy: dict[str, np.ndarray] = field(default_factory=dict)
    method: dict[str, np.ndarray] = field(default_factory=dict)
    visits: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundResult:
    """One finished round.

    Attributes:
        server_round: From 1.
        arrays: The global model after aggregation.
        test: The global model on clean test; None in a round that is not evaluated, and without a test set.
        validation: The same on the clean list that `val-split` names; None without one as well.
        train_loss: Mean local loss over the visit, averaged over clients by examples, in nats.
        num_examples: Images that the round's clients hold together, or that count in the mean (`Visit.used`).
        seconds: Wall time since the previous round ended, evaluation included; over all rounds they add up to the run.
        exchange_seconds: Wall time from sending this round's messages to its global model.
        overlap_seconds: How much of that passed while the server still evaluated the previous round.
        server_training_seconds: How much of it the method's server half trained; None if it does not.
        slowest_client_seconds: Longest visit among the usable replies: reading the data, training, packing the reply.
        slowest_training_seconds: Longest training loop among them, without decoding.
        evaluation_seconds: Wall time of evaluation, on the server and on clients.
        images_seen: Images that went through a training step, over all clients and local epochs.
        images_per_second: `images_seen` per second between sending and the aggregated model.
        sampled_partitions: Sampled clients, in the order of the messages.
        failures: Partition of each client without a usable reply, and the reason.
        on_clients: Mean metrics of federated evaluation; empty without it.
        of_validation: ``val-accuracy`` and ``val-loss`` as clients found them, with `val-split` noisy.
        of_strategy: Metrics that the strategy adds to those of the clients, such as ``clipping-norm``.
        of_method: Metrics of the method: how well it judges images and clients, where the truth is known.
        pick: Round and score of the model that is the best so far by `val-split`; None before there is one.
        rounds_to_target: The first round in which validation accuracy reached `target-accuracy`; None before, and
            without a target.
        ends: Why the run ends after this round and not in its last one, in a sentence; empty if it goes on.
        state: For a checkpoint.
        traffic: Bytes of arrays in the round's messages.
        learning_rate: With which clients took the round's steps.
        visits: By partition, what each usable reply reports, under `messages.keys`' names and those of the method, and
            ``images``, how many the client trains on.
        bytes_of_visits: By partition, bytes of arrays sent and received in training, by whomever is in `visits`.
        noisy_clients: By partition, whether the method now takes a client for noisy; None if it judges none yet.
        truly_noisy: By partition, whether it is; None where that is unknown.
        wrong_labels: By partition, its share of wrong labels, for those clients all of whose true labels are known.
    """

    server_round: int
    arrays: ArrayRecord
    test: Evaluation | None
    validation: Evaluation | None
    train_loss: float
    num_examples: int
    seconds: float
    slowest_client_seconds: float
    slowest_training_seconds: float
    evaluation_seconds: float
    images_seen: int
    images_per_second: float
    sampled_partitions: list[int]
    failures: dict[int, str] = field(default_factory=dict)
    on_clients: dict[str, float] = field(default_factory=dict)
    of_validation: dict[str, float] = field(default_factory=dict)
    of_strategy: dict[str, float] = field(default_factory=dict)
    of_method: dict[str, float] = field(default_factory=dict)
    pick: tuple[int, float] | None = None
    rounds_to_target: int | None = None
    ends: str = ""
    state: RunState = field(default_factory=RunState)
    traffic: RoundTraffic = field(default_factory=RoundTraffic)
    exchange_seconds: float = 0.0
    overlap_seconds: float = 0.0
    server_training_seconds: float | None = None
    learning_rate: float = 0.0
    visits: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    bytes_of_visits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    noisy_clients: Mapping[int, bool] | None = None
    truly_noisy: Mapping[int, bool] | None = None
    wrong_labels: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """What a resumed run has already done; empty for a new one.

    Attributes:
        last_round: 0 for a new run.
        metrics: The lines of metrics.jsonl up to that round.
        best: Round and score of the best model so far, see `server_app.picking`.
        visits: By partition, the round of its last good reply.
        arrays: The global model after that round, emptied after the next one; None for a new run.
    """

    last_round: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[int, float] | None = None
    visits: dict[int, int] = field(default_factory=dict)
    arrays: ArrayRecord | None = None

    def past(self, config: RunConfig) -> Past:
        """What decides whether the run is over, by the rules of its config."""
        return past_of(self.last_round, self.metrics, config, self.best)


class Callback:
    """Hooks of the round loop; the default does nothing.

    Attributes:
        writes: Its file or folder, in the run's.
        needed: Whether the run stops if that cannot be written; otherwise the log warns once.
    """

    writes = ""
    needed = True

    def on_start(self, history: History) -> None:
        """Called once before the first round, or the first round after a resume."""

    def after_round(self, result: RoundResult) -> None:
        """Called after each round; an exception stops the run before later callbacks are called."""

    def on_end(self) -> None:
        """Called once, even if the run stops early or another callback failed; afterwards all finished rounds must be
        safely on disk.
        """


class OccasionalCallback(Callback):
    """Writes what takes noticeable time: at most once every `SECONDS` during the run, and at its end."""

    SECONDS = 60.0

    def __init__(self) -> None:
        self._pending: RoundResult | None = None
        self._written = time.monotonic()

    def after_round(self, result: RoundResult) -> None:
        self._pending = result
        if time.monotonic() - self._written > self.SECONDS:
            self.on_end()

    def on_end(self) -> None:
        if self._pending is not None:
            self.write(self._pending)
            self._pending, self._written = None, time.monotonic()

    def write(self, result: RoundResult) -> None:
        """Write the state after `result`, replacing what was written before."""
        raise NotImplementedError
