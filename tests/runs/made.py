"""Runs as `read_run` returns them, made up: without a folder, and with as little as a test needs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.run_config import RunConfig, Value
from runs.entries import Entry
from runs.run import Run
from runs.table import Line, Table
from server_app.run_record import RunRecord

DATA = {"clean_test": "7e57", "clean_val": "7a1", "train": "77a1"}
GCE = {"method": "gce"}


def line(number: int, test: float | None, **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl; `more` in Python's spelling of its keys."""
    values = {"seconds": 2.0, "images-seen": 100, "sampled-partitions": [0, 1], "failed-partitions": [], "clients": 10}
    return {
        "round": number, "test-accuracy": test, "test-loss": None if test is None else 1 - test, **values,
        **{key.replace("_", "-"): value for key, value in more.items()},
    }  # fmt: skip


def made(
    accuracies: Sequence[float | None] = (0.5, 0.6),
    *,
    name: str = "run",
    seed: int = 1,
    lines: Sequence[dict[str, Any]] | None = None,
    record: Mapping[str, Any] | None = None,
    config: Mapping[str, Value] | None = None,
    folder: Path = Path("/runs"),
) -> Run:
    """A finished run with one round for each accuracy; `record` and `config` replace single values."""
    rounds = list(lines) if lines is not None else [line(n, value) for n, value in enumerate(accuracies, start=1)]
    known: dict[str, Any] = {
        "run": name, "flower_run": "1", "started": f"2026-01-01T00:00:{seed % 60:02}+00:00", "how": "finished",
        "code": ["c0de"], "data": DATA, "clients": 10, "held": f"held-{seed}",
    }  # fmt: skip
    of_run = {"num-server-rounds": len(rounds) or 1, "seed": seed, "run-name": name, **(config or {})}
    return Run(
        folder / name,
        {**RunConfig().to_flat(), **of_run},
        rounds,
        RunRecord(**{**known, **(record or {})}),
        in_use=False,
    )


def without_record(run: Run) -> Run:
    """As earlier versions left it."""
    return Run(run.folder, run.config, run.rounds, None, in_use=False)


def entry(label: str, seed: int, accuracy: float = 0.5, trials: int | None = None, **more: Any) -> Entry:
    """A run of four rounds that all reach `accuracy`."""
    about = {name: more.pop(name) for name in ("setting", "reference") if name in more}
    config = {**({} if label == "ce" else GCE), **more.pop("config", {})}
    run = made([accuracy] * 4, name=more.pop("name", f"{label}-{seed}"), seed=seed, config=config, **more)
    return Entry(label, run, trials=trials, **about)


def lines_of(table: Table) -> dict[str, Line]:
    assert len(table.sections) == 1
    return {line.label: line for line in table.sections[0].lines}
