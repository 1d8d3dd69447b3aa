"""Grids, and folders of runs made by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from config.resolve import app_defaults, resolve
from experiments.plan import Experiment, Row
from server_app.run_record import RunRecord, write_record

GRID: dict[str, Any] = {
    "baseline": "ce",
    "seeds": [1, 2],
    "base": {"model": "cnn", "image-size": 16, "num-server-rounds": 3},
    "axes": {
        "method": ["ce", "elr"],
        "noise": [
            {"name": "symmetric", "label-noise": "symmetric", "label-noise-args": "rate=0.4"},
            {"name": "pairflip", "label-noise": "pairflip", "label-noise-args": "rate=0.3"},
        ],
    },
    "federation": {"num-supernodes": 4, "client-resources-num-cpus": 1},
}


def write_grid(folder: Path, values: dict[str, Any] | None = None, **changes: Any) -> Path:
    """`GRID`, or `values`, with other keys; a key that becomes None is left out."""
    path = folder / "a grid.toml"
    whole = {**(GRID if values is None else values), **changes}
    path.write_text(tomli_w.dumps({key: value for key, value in whole.items() if value is not None}), encoding="utf-8")
    return path


def leave(experiment: Experiment, row: Row, rounds: int, seconds: float = 2.0, how: Any = "finished") -> Path:
    """A run's folder after some rounds: by default it has ended by itself, 10 seconds after it began besides rounds."""
    folder = experiment.run_dir(row)
    folder.mkdir(parents=True)
    config = {**resolve(row.config, app_defaults()).to_flat(), "num-clients": 4}
    (folder / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    lines = [{"round": number + 1, "test-accuracy": 0.5, "seconds": seconds} for number in range(rounds)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    taken = int(rounds * seconds) + 10
    ended = f"2026-01-01T00:{taken // 60:02}:{taken % 60:02}+00:00" if how else ""
    write_record(folder, RunRecord("a", "1", "2026-01-01T00:00:00+00:00", ended, how, code=["0" * 16], clients=4))
    return folder


def does_all(experiment: Experiment, rows: Sequence[Row], jobs: int | None) -> dict[str, str]:
    """In place of `experiments.engine.run_rows`: all rows that have no folder are done."""
    for row in rows:
        if not experiment.run_dir(row).exists():
            leave(experiment, row, 3)
    return {}
