"""`metrics.jsonl`: one JSON object per round, written as soon as the round is done."""

import json
import math
from pathlib import Path
from typing import Any

from server_app.callbacks import Callback, RoundResult


class MetricsFile(Callback):
    """Appends to a new file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(exist_ok=False)

    def after_round(self, result: RoundResult) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(as_json(result), allow_nan=False) + "\n")


def as_json(result: RoundResult) -> dict[str, Any]:
    """The logged metrics; docs/metrics.md explains each. A class without test images has recall null."""
    recall = [None if math.isnan(value) else round(float(value), 6) for value in result.test.recall]
    return {
        "round": result.server_round,
        "test-accuracy": result.test.accuracy,
        "test-loss": result.test.loss,
        "macro-f1": result.test.macro_f1,
        "per-class-recall": recall,
        "confusion-matrix": result.test.confusion.tolist(),
        "train-loss": result.train_loss,
        "num-examples": result.num_examples,
        "seconds": round(result.seconds, 3),
        "images-per-second": round(result.images_per_second, 2),
        "sampled-partitions": result.sampled_partitions,
        "failed-partitions": sorted(result.failures),
        **result.on_clients,
    }
