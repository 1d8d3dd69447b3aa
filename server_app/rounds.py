"""The round loop: send, aggregate, evaluate, and call the callbacks."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from logging import INFO, WARNING
from operator import add
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.common import log
from flwr.serverapp.strategy import Strategy

from config.run_config import RunConfig
from learning.schedule import rate_of
from learning.server_half import ServerHalf
from messages import keys
from methods.noisy_clients import client_scores, truly_noisy
from methods.scores import image_scores
from server_app.callbacks import Callback, History, RoundResult, RunState
from server_app.callbacks.metrics_file import as_json
from server_app.clean_sets import CleanSet
from server_app.early_stop import Past, is_evaluated, why_over
from server_app.exchange import Exchange, Sent
from server_app.over_clients import means
from server_app.picking import NOISY, VAL_ACCURACY
from server_app.replies import in_a_sentence
from server_app.server_training import ServerTraining, check_finite
from server_app.stopping import EXPECTED, RunStoppedError
from server_app.strategy import state_of
from server_app.writing import ending

LOST_STATE = (
    "Client %d has lost its state from round %d and starts afresh, or from an older state if that one is damaged;"
    " clients that move between machines need a 'state-dir' that these share."
)
NOTHING_PICKED = (
    "No round has a number by which 'val-split' %s could pick it, so there is no best.safetensors; the last model is in"
    " model.safetensors."
)


@dataclass(frozen=True)
class Times:
    """Moments of a round, by `time.perf_counter`.

    Attributes:
        before: When the round before it ended.
        aggregated: When the replies had become a model.
        ready: When that was the global model: after training on the server, if there is any.
    """

    before: float
    aggregated: float
    ready: float


class RoundLoop:
    """Runs the rounds of any Flower strategy: `config.num_server_rounds`, or fewer if a rule of the config ends it."""

    def __init__(
        self,
        exchange: Exchange,
        strategy: Strategy,
        clean_sets: Mapping[str, CleanSet],
        config: RunConfig,
        callbacks: Sequence[Callback],
        half: ServerHalf | None = None,
        training: ServerTraining | None = None,
    ) -> None:
        """Set up a run.

        Args:
            exchange: The run's messages.
            strategy: Of Flower's interface.
            clean_sets: ``test`` and ``validation``, as far as the run has them.
            config: The run's.
            callbacks: Called in this order.
            half: The method's server half.
            training: Lets that half train the global model; None if it does not.
        """
        self._exchange = exchange
        self._strategy = strategy
        self._clean_sets = clean_sets
        self._config = config
        self._callbacks = callbacks
        self._half = half or ServerHalf()
        self._training = training
        # Otherwise a strategy could not use evaluation results when it configures the next round.
        self._overlap = config.fraction_evaluate == 0

    def run(self, arrays: ArrayRecord, history: History | None = None) -> str:
        """Train from `arrays`, after the rounds of `history`.

        Callbacks always get their `on_end`, so that finished rounds are kept. `arrays` and all global models but the
        last are emptied.

        Returns:
            Why the run ended before its last round, in a sentence; empty if it did not.

        Raises:
            RunStoppedError: A round had no usable reply, or a callback stopped the run.
        """
        history = history or History()
        self._exchange.visits = dict(history.visits)
        past, last = history.past(self._config), self._config.num_server_rounds
        over = why_over(past, self._config)
        rounds = range(0) if over else range(history.last_round + 1, last + 1)
        for callback in self._callbacks:
            callback.on_start(history)
        with ending(self._callbacks):
            sent, done = None, time.perf_counter()
            if self._training and not history.last_round:
                arrays = self._training.step(0, arrays)
            for server_round in rounds:
                sent = sent or self._exchange.send(server_round, arrays)
                previous = arrays
                arrays, metrics = self._aggregate(sent)
                aggregated = time.perf_counter()
                if self._training:
                    arrays = self._training.step(server_round, arrays)
                # Before the next round's messages go out, which may change what the method's server half knows.
                state = RunState(state_of(self._strategy)(), self._half.state(), dict(self._exchange.visits))
                noisy = judgement(self._half)
                of_method = {**scores_of(noisy), **self._half.metrics(server_round)}
                times = Times(done, aggregated, time.perf_counter())
                # Clients train the next round while the server evaluates this one, unless `callbacks.failure_gate` may
                # still stop the run, or only a better accuracy keeps it going. If it ends all the same, nobody waits
                # for their replies, and no later visit builds on these.
                early = self._overlap and not sent.tally.failures and server_round < last
                early = early and not self._ends_unless_better(past, sent, aggregated - done)
                following, stopped = self._send_early(server_round + 1, arrays) if early else (None, None)
                result = self._evaluate(sent, arrays, metrics, of_method, state, times)
                sent, done = following, done + result.seconds
                past = past.after(as_json(result), self._config)
                over = why_over(past, self._config)
                reached = past.reached(self._config.target_accuracy)
                result = replace(result, pick=past.best(self._config), rounds_to_target=reached, ends=over, **noisy)
                for callback in self._callbacks:
                    callback.after_round(result)
                if over:
                    break
                if stopped:
                    raise stopped
                if previous is not arrays:
                    previous.clear()  # it is part of reference cycles, see `take_arrays`
        if over:
            log(INFO, "%s", over)
        if self._config.val_split != "none" and past.best(self._config) is None:
            log(WARNING, NOTHING_PICKED, self._config.val_split)
        return over

    def _ends_unless_better(self, past: Past, sent: Sent, seconds: float) -> bool:
        """Whether a round, which has taken so long, is the last if validation finds it no better than those before.

        How many predictions have changed is known by now.
        """
        line = {"round": sent.server_round, "seconds": seconds, **means(sent.tally.reports.values())}
        if is_evaluated(sent.server_round, self._config):
            line |= {"test-accuracy": 0.0, VAL_ACCURACY: 0.0}
        return bool(why_over(past.after(line, self._config), self._config))

    def _send_early(self, server_round: int, arrays: ArrayRecord) -> tuple[Sent | None, Exception | None]:
        """Send a round while the one before it is not on disk yet; what stops it must not lose that one."""
        try:
            return self._exchange.send(server_round, arrays), None
        except EXPECTED as error:
            return None, error

    def _aggregate(self, sent: Sent) -> tuple[ArrayRecord, MetricRecord]:
        averaged, metrics = self._strategy.aggregate_train(sent.server_round, self._exchange.train_replies(sent))
        if averaged is None:
            first = in_a_sentence(next(iter(sent.tally.failures.values()), "no client was sampled."))
            raise RunStoppedError(
                f"round {sent.server_round}: none of {len(sent.messages)} clients gave a usable reply; {first}"
            )
        sent.models.release()
        for partition, values in sent.tally.metrics.items():
            if values.get(keys.STATE_LOST):
                log(WARNING, LOST_STATE, partition, self._exchange.visits.get(partition, 0))
            self._exchange.visits[partition] = sent.server_round
        self._half.heard(sent.server_round, sent.tally.metrics)
        if sent.tally.arrays:
            self._half.heard_arrays(sent.server_round, sent.tally.arrays)
        return averaged, metrics or MetricRecord()

    def _evaluate(
        self,
        sent: Sent,
        averaged: ArrayRecord,
        metrics: MetricRecord,
        of_method: Mapping[str, float],
        state: RunState,
        times: Times,
    ) -> RoundResult:
        """Evaluate a round if it is due."""
        began = time.perf_counter()
        quality, on_clients = {}, {}
        is_due = is_evaluated(sent.server_round, self._config)
        if is_due:
            quality = {name: clean_set.evaluate(averaged) for name, clean_set in self._clean_sets.items()}
        if not quality or not all(math.isfinite(found.loss) for found in quality.values()):
            check_finite(averaged, sent.server_round)
        if is_due:
            on_clients = self._exchange.evaluate(sent.server_round, averaged, sent.traffic.evaluation)
        ended = time.perf_counter()
        reports = sent.tally.metrics.values()
        seen = int(sum(values.get(keys.IMAGES_SEEN, 0) for values in reports))
        return RoundResult(
            server_round=sent.server_round,
            arrays=averaged,
            test=quality.get("test"),
            validation=quality.get("validation"),
            train_loss=_mean_loss(list(reports)),
            num_examples=int(sum(values[keys.NUM_EXAMPLES] for values in reports)),
            seconds=ended - times.before,
            slowest_client_seconds=max(values.get(keys.VISIT_SECONDS, 0.0) for values in reports),
            slowest_training_seconds=max(values.get(keys.TRAIN_SECONDS, 0.0) for values in reports),
            evaluation_seconds=ended - began,
            images_seen=seen,
            images_per_second=seen / (times.aggregated - sent.started),
            sampled_partitions=sent.sampled,
            failures=sent.tally.failures,
            on_clients=on_clients,
            of_validation=_as_validation(on_clients) if self._config.val_split == NOISY else {},
            of_strategy={
                key: float(value)
                for key, value in metrics.items()
                if isinstance(value, (int, float)) and not any(key in report for report in reports)
            },
            of_method={**of_method, **image_scores(reports)},
            state=state,
            traffic=sent.traffic,
            exchange_seconds=times.ready - sent.started,
            overlap_seconds=max(0.0, times.before - sent.started),
            server_training_seconds=times.ready - times.aggregated if self._training else None,
            learning_rate=rate_of(self._config, sent.server_round),
            visits=sent.tally.reports,
            bytes_of_visits=_bytes_of_visits(sent),
        )


def judgement(half: ServerHalf) -> dict[str, Any]:
    """Whom a half takes for noisy, and the truth where it is known, by the names of `RoundResult`'s attributes."""
    noisy, wrong = half.noisy_clients(), half.wrong_labels()
    known = None if noisy is None else truly_noisy(_shares(noisy, wrong))
    truth = None if noisy is None or known is None else dict(zip(noisy, known.tolist(), strict=True))
    return {"noisy_clients": noisy, "truly_noisy": truth, "wrong_labels": wrong}


def scores_of(judged: Mapping[str, Any]) -> dict[str, float]:
    """How right a `judgement` is, for the round's line: the same for every method, so that no half sees to it."""
    noisy: Mapping[int, bool] | None = judged["noisy_clients"]
    if noisy is None:
        return {}
    return client_scores(np.array(list(noisy.values()), dtype=bool), _shares(noisy, judged["wrong_labels"]))


def _shares(noisy: Mapping[int, bool], wrong: Mapping[int, float]) -> np.ndarray:
    """(judged clients,) float64, the shares of their labels that are wrong; NaN where unknown."""
    return np.array([wrong.get(client, np.nan) for client in noisy], dtype=np.float64)


def _bytes_of_visits(sent: Sent) -> dict[int, tuple[int, int]]:
    """By partition, what went to each client with a usable reply and what came from it, all attempts together."""
    counts = sent.traffic.training.of_nodes
    found = {member.partition_id: counts.get(node_id) for node_id, member in sent.tally.members.items()}
    return {client: count for client, count in found.items() if count and client in sent.tally.metrics}


def _as_validation(on_clients: Mapping[str, float]) -> dict[str, float]:
    """Federated evaluation under the names of validation; empty if no client has evaluated."""
    names = {keys.EVAL_ACCURACY: VAL_ACCURACY, keys.EVAL_LOSS: "val-loss"}
    return {name: on_clients[key] for key, name in names.items() if key in on_clients}


def _mean_loss(reports: Sequence[Mapping[str, Any]]) -> float:
    """The clients' mean loss by examples, whatever the strategy reports; the same bits as Flower's own mean."""
    total = sum(values[keys.NUM_EXAMPLES] for values in reports)
    parts = (values[keys.TRAIN_LOSS] * (values[keys.NUM_EXAMPLES] / total) for values in reports)
    return float(reduce(add, parts))  # `sum` compensates for rounding since Python 3.12
