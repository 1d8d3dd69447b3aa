"""One run's folder, read: its settings, its rounds, how it ended. Nothing here writes."""

import contextlib
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from config.measure import Measure, measure_of
from config.recorded import as_recorded
from config.run_config import ConfigError, RunConfig, Value
from data.whole_files import TEMPORARY, round_of
from runs.errors import RunsError
from server_app.files import BEST, CHECKPOINTS
from server_app.round_lines import METRICS, read_lines
from server_app.run_lock import FILE as LOCK
from server_app.run_lock import is_in_use
from server_app.run_record import RunRecord, read_record

Status = Literal["running", "finished", "stopped", "interrupted"]
FIRST_LINE = re.compile(r"# Flower's run \S+, code ([0-9a-f]+),")
NAMED_BY_TIME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(_\d+)?")  # as `create_run_dir` does
DEFAULTS = RunConfig().to_flat()
NEW = (CHECKPOINTS, BEST, "metrics.jsonl", "state")  # what is in a folder without a config.toml
ALWAYS = frozenset(
    {"num-server-rounds", "model", "partition", "seed"}
)  # a config.toml without them is another's, or cut
EXPERIMENT, ROWS = "experiment.json", "runs"  # an experiment's folder has both: `experiments.plan`


@dataclass(frozen=True)
class Run:
    """A run as its folder has it.

    Attributes:
        folder: Absolute.
        config: Resolved, under kebab-case keys; keys that an earlier version did not have are at their defaults, which
            is what it did. Empty if config.toml is missing or damaged.
        rounds: The valid lines of metrics.jsonl, in order, each round once; docs/metrics.md explains the keys.
        record: `run.json`; None in folders of earlier versions, or if it is damaged.
        in_use: Whether a process writes it.
        problems: What could not be read, a sentence each.
    """

    folder: Path
    config: dict[str, Value]
    rounds: list[dict[str, Any]]
    record: RunRecord | None
    in_use: bool
    problems: tuple[str, ...] = ()

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
    def measure(self) -> Measure:
        """On what its accuracies are."""
        return measure_of(self.config)

    @property
    def accuracies(self) -> dict[int, float]:
        """By round the accuracy of its model, 0 to 1; of rounds that were evaluated."""
        return self.measure.by_round(self.rounds)

    @property
    def status(self) -> Status:
        """A run that a rule ended early is finished; one that was killed, or whose machine failed, is interrupted."""
        if self.in_use:
            return "running"
        if self.record and self.record.how:
            return self.record.how
        return "finished" if 0 < self.asked <= self.done and not self.record else "interrupted"

    @property
    def reason(self) -> str:
        """Why it ended before its last round; empty if it did not, or was killed."""
        return self.record.reason if self.record else ""

    @property
    def started(self) -> datetime | None:
        """When it first began, in UTC; None if neither its record nor its name tells."""
        if self.record:
            return time_of(self.record.started)
        named = NAMED_BY_TIME.fullmatch(self.name)
        with contextlib.suppress(ValueError, OverflowError):
            return datetime.strptime(named[1], "%Y-%m-%d_%H-%M-%S").astimezone(UTC) if named else None
        return None

    @property
    def ended(self) -> datetime | None:
        """When it last ended, in UTC; None if it runs, was killed, or has no record."""
        return time_of(self.record.ended) if self.record and not self.in_use else None

    @cached_property
    def changed(self) -> datetime:
        """When a file of its folder was last written, in UTC; what is in other folders, such as checkpoints, does not
        count. Of a run without files, when its folder was.
        """
        times, own = [], 0.0
        with contextlib.suppress(OSError):
            own = self.folder.stat().st_mtime
            for entry in os.scandir(self.folder):
                if entry.name != LOCK and entry.is_file(follow_symlinks=False):
                    times.append(entry.stat(follow_symlinks=False).st_mtime)
        return datetime.fromtimestamp(max(times, default=own), UTC)

    @cached_property
    def code(self) -> str:
        """Fingerprints of the code that it ran, joined by ``+``; empty if unknown."""
        if self.record:
            return "+".join(self.record.code)
        return _code_in(self.folder / "config.toml")


def read_run(folder: Path) -> Run:
    """Read a run's folder; whatever in it is damaged is among its `problems`.

    Raises:
        RunsError: It is none.
    """
    none = f"{folder} is no run: it must be a folder with the config.toml, metrics.jsonl or checkpoints of one."
    if not is_run(folder):
        raise RunsError(none)
    config, problems = read_config(folder)
    in_use = is_in_use(folder)
    lines: list[dict[str, Any]] = []
    try:
        found = read_lines(folder / "metrics.jsonl", 10**9, METRICS)
        lines = found.entries
        if found.damaged and not in_use:  # a line may be half written
            problems.append(f"metrics.jsonl: {found.damaged} damaged lines are left out.")
    except ConfigError:
        problems.append("metrics.jsonl cannot be read.")
    run = Run(folder.absolute(), config, lines, read_record(folder), in_use, tuple(problems))
    if not _is_ours(run):
        raise RunsError(none)
    return run


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run's; one that nobody may look into does not."""
    try:
        return folder.is_dir() and any(
            (folder / name).exists() for name in ("config.toml", "metrics.jsonl", CHECKPOINTS)
        )
    except (OSError, ValueError):
        return False


def _is_ours(run: Run) -> bool:
    """Whether this app wrote the folder: others have a config.toml or checkpoints, too, and removal asks.

    A run that has just begun has nothing but its checkpoints. What may not be read counts as ours.
    """
    if run.config or run.rounds or run.record or run.code:
        return True
    try:
        (run.folder / "config.toml").open("rb").close()
    except FileNotFoundError:
        found = {path.name for folder in (run.folder, run.folder / CHECKPOINTS) for path in _in(folder)}
        return all(name in NEW or name == LOCK or TEMPORARY.fullmatch(name) or round_of(name) for name in found)
    except OSError:
        return True
    return False


def _in(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def find_runs(parent: Path) -> Iterator[Run]:
    """The runs in a folder, or in that of an experiment, by name; hidden folders are none.

    A folder that may not be looked into might be one, and is there with that problem.

    Raises:
        OSError: `parent` cannot be read.
    """
    for folder in sorted(rows_of(parent).iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if is_run(folder):
            with contextlib.suppress(RunsError):
                yield read_run(folder)
        elif not os.access(folder, os.X_OK):
            yield Run(folder.absolute(), {}, [], None, False, ("The folder cannot be read.",))


def rows_of(parent: Path) -> Path:
    """The folder that holds the runs: of an experiment's folder one that is in it, else the folder itself."""
    return parent / ROWS if is_experiment(parent) else parent


def is_experiment(folder: Path) -> bool:
    """Whether a folder is that of `python -m experiments`."""
    return os.path.isfile(folder / EXPERIMENT) and os.path.isdir(folder / ROWS)  # noqa: PTH112, PTH113  never raise


def time_of(text: str) -> datetime | None:
    """A time of run.json, in UTC; None if it is none."""
    with contextlib.suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return None


def comparable_config(run: Run) -> dict[str, Value]:
    """All settings of a run, but those that say where it is and that cannot change a result."""
    return {key: value for key, value in run.config.items() if key not in PLACES}


# Keys that change no result: where things are, and what is told to whom.
PLACES = frozenset({"output-dir", "run-name", "resume", "tracking", "cache-dir", "cache-gib", "state-dir", "preset"})


def read_config(folder: Path) -> tuple[dict[str, Value], list[str]]:
    """Keys and values of a run's config.toml, none if it cannot be read; and what is wrong with it.

    Rules are not checked: a value that this version no longer takes is still what the run had.
    """
    try:
        text = (folder / "config.toml").read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        return {}, ["config.toml is missing."]
    except (OSError, ValueError, RecursionError):
        return {}, ["config.toml is damaged or cannot be read."]
    known = {key: value for key, value in values.items() if key in DEFAULTS}
    if (
        not known.keys() >= ALWAYS
        or not text.endswith("\n")
        or not all(_fits(value, DEFAULTS[key]) for key, value in known.items())
    ):
        return {}, ["config.toml is damaged."]
    config = {**DEFAULTS, **as_recorded(known)}
    return {key: float(value) if type(DEFAULTS[key]) is float else value for key, value in config.items()}, []


def _fits(value: Any, default: Value) -> bool:
    if type(default) is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is type(default)


def _code_in(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            found = FIRST_LINE.match(file.readline(500))
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""
