"""`metrics.jsonl`: one JSON object per round, written as soon as the round is done."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.confusion import MANY_CLASSES
from learning.evaluation import Evaluation
from server_app.callbacks import Callback, History, RoundResult
from server_app.over_clients import MEANS, summary
from server_app.picking import VAL_ACCURACY
from server_app.round_lines import METRICS, keep_lines
from server_app.traffic import RoundTraffic

OURS = {*MEANS, VAL_ACCURACY, "val-loss"}  # whose names no method and no strategy may take


class MetricsFile(Callback):
    """Appends to the file; a resumed run first sets aside what it does not keep, such as rounds that it will repeat."""

    writes = "metrics.jsonl"

    def __init__(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        """Append to `path`; each line also has what `about` says of the run."""
        self._path = path
        self._about = dict(about or {})

    def on_start(self, history: History) -> None:
        keep_lines(self._path, history.last_round, METRICS)
        self._path.touch()

    def after_round(self, result: RoundResult) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**as_json(result), **self._about}, allow_nan=False) + "\n")


def as_json(result: RoundResult) -> dict[str, Any]:
    """The logged metrics; docs/metrics.md explains each. Null stands for a number that is not finite, for what is not
    evaluated in this round, and for the recall of a class without test images.
    """
    values = {
        "round": result.server_round,
        **_quality(result.test, result.validation),
        **result.of_validation,
        **({} if result.rounds_to_target is None else {"rounds-to-target": result.rounds_to_target}),
        "train-loss": result.train_loss,
        "learning-rate": result.learning_rate,
        "num-examples": result.num_examples,
        "seconds": round(result.seconds, 3),
        "exchange-seconds": round(result.exchange_seconds, 3),
        "overlap-seconds": round(result.overlap_seconds, 3),
        **_on_server(result.server_training_seconds),
        "slowest-client-seconds": round(result.slowest_client_seconds, 3),
        "slowest-training-seconds": round(result.slowest_training_seconds, 3),
        "evaluation-seconds": round(result.evaluation_seconds, 3),
        "images-seen": result.images_seen,
        "images-per-second": round(result.images_per_second, 2),
        **_bytes(result.traffic),
        "sampled-partitions": result.sampled_partitions,
        "failed-partitions": sorted(result.failures),
        **summary(result.visits.values()),
    }
    more = {**result.on_clients, **result.of_strategy, **result.of_method}
    # "round" is how lines are found, and others decide which round is picked, also by not being there.
    values |= {key: value for key, value in more.items() if key not in values and key not in OURS}
    broken = [key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    return {**values, **dict.fromkeys(broken)}


def _on_server(seconds: float | None) -> dict[str, float]:
    """What the server's own training took, if it trains."""
    return {} if seconds is None else {"server-training-seconds": round(seconds, 3)}


def _bytes(traffic: RoundTraffic) -> dict[str, int]:
    """Of training, and what else was sent, if there was anything."""
    besides = {"query-bytes": traffic.questions.sent, "eval-bytes": traffic.evaluation.sent}
    return {
        "sent-bytes": traffic.training.sent,
        "received-bytes": traffic.training.received,
        **{key: count for key, count in besides.items() if count},
    }


def _quality(test: Evaluation | None, validation: Evaluation | None) -> dict[str, Any]:
    """What the server's evaluation found. Without clean test the accuracy and the loss on it are null, and what else is
    of it is left out, as the table of more than `MANY_CLASSES` classes always is.
    """
    values: dict[str, Any] = {"test-accuracy": None, "test-loss": None}
    if test is not None:
        values = {"test-accuracy": test.accuracy, "test-loss": test.loss}
    if validation is not None:
        values |= {"val-accuracy": validation.accuracy, "val-loss": validation.loss}
    if test is not None:
        recall = [None if math.isnan(value) else round(float(value), 6) for value in test.recall]
        values |= {"macro-f1": test.macro_f1, "per-class-recall": recall}
        if len(test.confusion) <= MANY_CLASSES:
            values["confusion-matrix"] = test.confusion.tolist()
    return values
