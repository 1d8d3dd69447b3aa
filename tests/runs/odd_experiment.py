"""An experiment whose labels, classes and errors are what nobody should name anything, written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tomli_w

from config.run_config import RunConfig
from experiments.plan import Experiment, Plan, Row, save
from server_app.run_record import RunRecord, write_record

ODD = (
    "</script><script>window.hit = 1</script> <b>bold</b> &amp; & 'one' \"two\" <a href='http://x.invalid'>x</a>"
    " 衬衫 🧥 \u202eright\u200f %{x} {{ 7 * 7 }} ${1}"
)
LABELS = ["ce", "elr", ODD, "é" * 300, *(f"method {number}" for number in range(4))]
CLASSES = [
    "T恤 👕",
    "<img src=x onerror='window.hit = 1'>",
    '"><svg onload="window.hit = 1">',
    "名" * 300,
    "Shirt",
    "Shirt",
]
SETTINGS = ["symmetric <i>rate</i>=0.2", "pairflip & 'rate'=0.3"]
REASON = "RuntimeError: <script>window.hit = 1</script> 坏"
ROUNDS = 5


def write(folder: Path) -> Path:
    """Two settings, all labels, two seeds; the last row has failed after two rounds, and one has not begun."""
    rows = [
        Row(f"row-{setting}-{label}-{seed}", LABELS[label], SETTINGS[setting], seed, {"seed": seed}, {}, "0" * 8)
        for setting in range(len(SETTINGS))
        for label in range(len(LABELS))
        for seed in (1, 2)
    ]
    experiment = Experiment(folder, Plan(f"Grid {ODD}", tuple(rows), "ce"), {rows[-1].name: REASON})
    folder.mkdir()
    save(experiment)
    for number, row in enumerate(rows[:-2]):
        _leave(experiment.run_dir(row), row, number, ROUNDS)
    _leave(experiment.run_dir(rows[-1]), row=rows[-1], number=1, rounds=2, how="stopped", reason=REASON)
    return folder


def _leave(folder: Path, row: Row, number: int, rounds: int, **record: Any) -> None:
    folder.mkdir(parents=True)
    of_row = {
        "seed": row.seed,
        "num-server-rounds": ROUNDS,
        "num-clients": 4,
        "learning-rate": 0.001 * (1 + number // 2),
    }
    config = {**RunConfig().to_flat(), **of_row, "method-args": 'text="it\'s"'}
    (folder / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    lines = [_line(one, 0.02 * one + 0.01 * (number % 17)) for one in range(1, rounds + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    known: dict[str, Any] = {
        "run": "a", "flower_run": "1", "started": "2026-01-01T00:00:00+00:00", "how": "finished", "code": ["c0de"],
        "versions": {"flwr": "1.42.0"}, "machine": {"cpu": "<b>Xeon</b>", "gpu": ""}, "clients": 4,
        "data": {"clean_test": "7e57", "clean_val": "7a1", "train": "77a1"}, "held": f"held-{row.seed}",
    }  # fmt: skip
    write_record(folder, RunRecord(**{**known, **record}))
    about = {"class-names": json.dumps(CLASSES)}
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, folder / "model.safetensors", about)


def _line(number: int, accuracy: float) -> dict[str, Any]:
    return {
        "round": number, "test-accuracy": accuracy, "test-loss": 1.0, "val-accuracy": accuracy + 0.01,
        "train-loss": 2.0, "seconds": 2.0, "images-seen": 100, "per-class-recall": [accuracy, 0, 1, 0.5, None, 0.25],
        "confusion-matrix": [[3, 1, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0], [0, 1, 2, 0, 0, 0],
                             [0, 0, 1, 2, 0, 0], [0] * 6, [1, 1, 1, 1, 0, 0]],
        "suspects-precision": 0.5,
    }  # fmt: skip
