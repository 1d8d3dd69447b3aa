"""The names under which trackers get a round's numbers: a group that is charted together, a slash and a name."""

from collections.abc import Mapping
from typing import Any

OTHER = "other"
STEP = "round"  # trackers have it as the step
NAMES = {
    "test-accuracy": "test/accuracy",
    "test-loss": "test/loss",
    "macro-f1": "test/macro-f1",
    "val-accuracy": "val/accuracy",
    "val-loss": "val/loss",
    "rounds-to-target": "val/rounds-to-target",
    "eval-accuracy": "eval/accuracy",
    "eval-loss": "eval/loss",
    "train-loss": "train/loss",
    "train-loss-worst-tenth": "train/loss-worst-tenth",
    "server-loss": "train/server-loss",
    "learning-rate": "train/learning-rate",
    "seconds": "time/seconds",
    "exchange-seconds": "time/exchange-seconds",
    "overlap-seconds": "time/overlap-seconds",
    "server-training-seconds": "time/server-training-seconds",
    "slowest-client-seconds": "time/slowest-client-seconds",
    "slowest-training-seconds": "time/slowest-training-seconds",
    "evaluation-seconds": "time/evaluation-seconds",
    "num-examples": "images/num-examples",
    "images-seen": "images/seen",
    "images-per-second": "images/per-second",
    "sent-bytes": "traffic/sent-bytes",
    "received-bytes": "traffic/received-bytes",
    "query-bytes": "traffic/query-bytes",
    "eval-bytes": "traffic/eval-bytes",
    "loss-before": "inspection/loss-before",
    "loss-after": "inspection/loss-after",
    "agreement-before": "inspection/agreement-before",
    "agreement-after": "inspection/agreement-after",
    "agreement-before-worst-tenth": "inspection/agreement-before-worst-tenth",
    "agreement-after-worst-tenth": "inspection/agreement-after-worst-tenth",
    "prediction-changes": "inspection/prediction-changes",
    "own-loss-before": "own/loss-before",
    "own-loss-after": "own/loss-after",
    "own-accuracy-before": "own/accuracy-before",
    "own-accuracy-after": "own/accuracy-after",
    "own-accuracy-before-worst-tenth": "own/accuracy-before-worst-tenth",
    "own-accuracy-after-worst-tenth": "own/accuracy-after-worst-tenth",
    "label-accuracy": "labels/accuracy",
    "corrected-label-accuracy": "labels/corrected-accuracy",
    "suspects-precision": "labels/suspects-precision",
    "suspects-recall": "labels/suspects-recall",
    "suspects-at-budget-precision": "labels/suspects-at-budget-precision",
    "suspects-at-budget-fnr": "labels/suspects-at-budget-fnr",
    "noisy-clients": "clients/noisy",
    "noisy-clients-precision": "clients/noisy-precision",
    "noisy-clients-recall": "clients/noisy-recall",
    "clipping-norm": "privacy/clipping-norm",
    "noise-stddev": "privacy/noise-stddev",
}


def tracked(line: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a line of metrics.jsonl but its round, under their names in trackers."""
    return {
        tracked_name(key): value
        for key, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key != STEP
    }


def tracked_name(key: str) -> str:
    """A key's name in trackers; one of your own that has no group goes to `OTHER`."""
    return NAMES.get(key) or (key if "/" in key else f"{OTHER}/{key}")
