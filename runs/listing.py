"""`python -m runs list`: all runs of a folder."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.measure import CLEAN_TEST
from runs.columns import By
from runs.places import bytes_on_disk
from runs.printing import UNKNOWN, counted, in_bytes, in_minutes, in_percent, iso, print_json, print_table, say
from runs.removing import leftovers
from runs.run import Run, find_runs, is_experiment, rows_of


@dataclass(frozen=True)
class Listed:
    """A run, and what its folder takes on disk, in bytes."""

    run: Run
    size: int


# By column: what it is sorted by, before which what is unknown comes.
ORDER: dict[By, Callable[[Listed], Any]] = {
    By.STARTED: lambda one: one.run.started or one.run.changed,
    By.NAME: lambda one: one.run.name,
    By.PRESET: lambda one: _text(one.run, "preset"),
    By.METHOD: lambda one: _text(one.run, "method"),
    By.STRATEGY: lambda one: _text(one.run, "strategy"),
    By.ROUNDS: lambda one: one.run.done,
    By.STATUS: lambda one: one.run.status,
    By.ACCURACY: lambda one: (*_comparable(one.run), accuracy(one.run) or 0.0),
    By.SIZE: lambda one: one.size,
}


NUMBERS = (By.ROUNDS, By.ACCURACY, By.SIZE)
# Where a terminal is too narrow.
BELOW: dict[str, str] = {By.STARTED: By.NAME, By.STRATEGY: By.METHOD, By.PRESET: By.METHOD}
ON = "accuracy on"


def list_runs(folder: Path, by: By, reverse: bool, as_json: bool) -> None:
    """Print them, the largest last."""
    listed = [Listed(run, bytes_on_disk(run.folder)) for run in find_runs(folder)] if folder.is_dir() else []
    listed.sort(key=ORDER[by], reverse=reverse)  # runs that are equal stay in the order of their names
    if as_json:
        print_json([about(one) for one in listed])
        return
    if listed:
        _print(listed)
    else:
        say(f"There are no runs in {folder}.")
    for note in _notes(folder, listed):
        say(note)


def about(one: Listed) -> dict[str, Any]:
    """A run for scripts; docs/runs.md says what each key means."""
    run = one.run
    return {
        "name": run.name,
        "folder": str(run.folder),
        "started": iso(run.started),
        "ended": iso(run.ended),
        "changed": iso(run.changed),
        "status": run.status,
        "reason": run.reason,
        **{key: run.config.get(key) for key in ("preset", "method", "strategy", "seed")},
        "rounds": run.done,
        "asked": run.asked or None,
        "accuracy": accuracy(run),
        "accuracy-round": max(run.accuracies, default=None),
        "accuracy-on": run.measure.name,
        "bytes": one.size,
        "problems": list(run.problems),
    }


def accuracy(run: Run) -> float | None:
    """Of the last round that was evaluated, 0 to 1, on what `Run.measure` says."""
    return next(reversed(run.accuracies.values()), None)


def _comparable(run: Run) -> tuple[bool, bool, str]:
    """By accuracy, runs without one come first, then those without a test set, in groups of one measure."""
    return accuracy(run) is not None, run.measure == CLEAN_TEST, run.measure.name


def all_on_clean_test(runs: Iterable[Run]) -> bool:
    """Whether nothing need be said of what their accuracies are on."""
    return all(run.measure == CLEAN_TEST for run in runs)


def rounds(run: Run) -> str:
    """Rounds done of those that were asked for."""
    return f"{run.done}/{run.asked or '?'}"


def _text(run: Run, key: str) -> str:
    return str(run.config.get(key, UNKNOWN))


def _print(listed: list[Listed]) -> None:
    cells: dict[By, Callable[[Run], str]] = {
        By.STARTED: lambda run: in_minutes(run.started),
        By.NAME: lambda run: run.name,
        By.PRESET: lambda run: _text(run, "preset"),
        By.METHOD: lambda run: _text(run, "method"),
        By.STRATEGY: lambda run: _text(run, "strategy"),
        By.ROUNDS: rounds,
        By.STATUS: lambda run: run.status,
        By.ACCURACY: lambda run: in_percent(accuracy(run)),
    }
    if not any(one.run.config.get("preset") for one in listed):
        del cells[By.PRESET]
    columns = {str(by): cell for by, cell in cells.items()}
    if not all_on_clean_test(one.run for one in listed):
        columns[ON] = lambda run: run.measure.short
    rows = [[*(cell(one.run) for cell in columns.values()), in_bytes(one.size)] for one in listed]
    print_table([*columns, By.SIZE], rows, right=NUMBERS, whole=(By.STATUS,), below={**BELOW, ON: By.ACCURACY})


def _notes(folder: Path, listed: list[Listed]) -> list[str]:
    """What the table does not say."""
    notes = [f"{one.run.name}: {problem}" for one in listed for problem in one.run.problems]
    if not folder.is_dir():
        return notes
    if experiments := sorted(path.name for path in folder.iterdir() if is_experiment(path)):
        notes.append(f"Experiments, whose runs are listed by their own folder: {', '.join(experiments)}.")
    if left := leftovers(rows_of(folder)):
        notes.append(f"{counted(len(left), 'folder')} left of an interrupted removal; the next `remove` deletes them.")
    return notes
