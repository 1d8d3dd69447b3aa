"""Folders of runs, written by hand: as little as a test needs, in a millisecond."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from config.run_config import RunConfig, Value
from runs.run import Run
from server_app.run_record import RunRecord, write_record
from tests.runs.made import line


@dataclass(frozen=True)
class Said:
    """What a command ended with: exit code, and what it wrote to its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def write_run(
    folder: Path,
    accuracies: Sequence[float | None] = (0.25, 0.5),
    config: dict[str, Value] | None = None,
    record: dict[str, Any] | None = None,
    large: int = 10_000,
) -> Path:
    """A finished run of as many rounds as accuracies.

    Args:
        folder: Made.
        accuracies: On clean test, by round.
        config: What differs from the defaults.
        record: Of run.json; None: a folder of an earlier version, without the file.
        large: Bytes of the checkpoint, of the weights and of a client's state.
    """
    for name in ("checkpoints", "state/run/client-00000"):
        (folder / name).mkdir(parents=True)
    values = {**RunConfig().to_flat(), "num-server-rounds": len(accuracies), "strategy": "fedavg", "num-clients": 10}
    text = f"# Flower's run 7, code c0de, flwr 1.42.0\n{tomli_w.dumps({**values, **(config or {})})}"
    (folder / "config.toml").write_text(text, encoding="utf-8")
    lines = [line(number, accuracy) for number, accuracy in enumerate(accuracies, start=1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
    for name in ("checkpoints/round-00002.safetensors", "model.safetensors", "state/run/client-00000/x"):
        (folder / name).write_bytes(b"x" * large)
    (folder / ".lock").touch()
    if record is not None:
        known = {"run": "abc", "flower_run": "7", "started": "2026-03-01T10:00:00+00:00", "code": ["c0de"]}
        write_record(folder, RunRecord(**{**known, **record}))
    return folder


def made_long_ago(folder: Path, days: float) -> Path:
    """All files of a run, as if they had been written so many days ago."""
    then = (folder / "metrics.jsonl").stat().st_mtime - days * 24 * 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)
    return folder


def names(found: Sequence[Run]) -> list[str]:
    return [run.name for run in found]
