"""One run's folder, read: its settings, its rounds, how it ended. Nothing here writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from config.run_config import Value
from runs.errors import RunsError
from server_app.files import CHECKPOINTS
from server_app.resume import read_config
from server_app.round_lines import METRICS, read_lines
from server_app.run_lock import is_in_use
from server_app.run_record import RunRecord, read_record

Status = Literal["running", "finished", "stopped", "interrupted"]
FIRST_LINE = re.compile(r"# Flower's run \S+, code ([0-9a-f]+),")


@dataclass(frozen=True)
class Run:
    """A run as its folder has it.

    Attributes:
        folder: Absolute.
        config: Resolved, under kebab-case keys; empty if config.toml is missing or damaged.
        rounds: The valid lines of metrics.jsonl, in order, each round once; docs/metrics.md explains the keys.
        record: `run.json`; None in folders of earlier versions.
        in_use: Whether a process writes it.
    """

    folder: Path
    config: dict[str, Value]
    rounds: list[dict[str, Any]]
    record: RunRecord | None
    in_use: bool

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def asked(self) -> int:
        """Rounds that it was asked to train."""
        return int(self.config.get("num-server-rounds", 0))

    @property
    def done(self) -> int:
        """The last round that is complete."""
        return int(self.rounds[-1]["round"]) if self.rounds else 0

    @property
    def evaluated(self) -> list[dict[str, Any]]:
        """The rounds that were evaluated."""
        return [line for line in self.rounds if line["test-accuracy"] is not None]

    @property
    def status(self) -> Status:
        if self.in_use:
            return "running"
        if self.record and self.record.how:
            return self.record.how
        return "finished" if 0 < self.asked <= self.done and not self.record else "interrupted"

    @property
    def reason(self) -> str:
        """Why it ended before its last round; empty if it did not, or was killed."""
        return self.record.reason if self.record else ""

    @cached_property
    def code(self) -> str:
        """Fingerprints of the code that it ran, joined by ``+``; empty if unknown."""
        if self.record:
            return "+".join(self.record.code)
        return _code_in(self.folder / "config.toml")


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        RunsError: It is none.
    """
    if not is_run(folder):
        raise RunsError(f"{folder} is no run: it must be a folder with a config.toml or metrics.jsonl.")
    config = read_config(folder) or {}
    last = 10**9
    lines = read_lines(folder / "metrics.jsonl", last, METRICS).entries
    return Run(folder.absolute(), config, lines, read_record(folder), is_in_use(folder))


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run's."""
    return any((folder / name).exists() for name in ("config.toml", "metrics.jsonl", CHECKPOINTS)) and folder.is_dir()


def find_runs(parent: Path) -> Iterator[Run]:
    """The runs in a folder, by name."""
    for folder in sorted(parent.iterdir()):
        if is_run(folder):
            yield read_run(folder)


def comparable_config(run: Run) -> dict[str, Value]:
    """All settings of a run, but those that say where it is and that cannot change a result."""
    return {key: value for key, value in run.config.items() if key not in PLACES}


# Keys that change no result: where things are, and what is told to whom.
PLACES = frozenset({"output-dir", "run-name", "resume", "tracking", "cache-dir", "cache-gib", "state-dir", "preset"})


def _code_in(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            found = FIRST_LINE.match(file.readline(500))
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""
