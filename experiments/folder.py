"""An experiment's folder between two starts: what the last one left, and what becomes of it under the grid of today."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from config.rules import NAME
from experiments.checks import clients_of
from experiments.errors import ExperimentError
from experiments.identity import DIGITS
from experiments.plan import FILE, LOGS, RUNS, Experiment, Plan, Row, load, save

GRID = "grid.toml"  # a copy of the grid
MARKED = re.compile(rf"[^.].*-([0-9a-f]{{{DIGITS}}})")  # the folder of a row, as `identity.name_of` calls it


def last_start(folder: Path) -> Experiment | None:
    """The experiment in a folder; None where there is nothing yet.

    Raises:
        ExperimentError: Something else is in there, or its `FILE` is damaged.
    """
    if (folder / FILE).exists():
        return load(folder)
    there = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.exists() else []
    if there and GRID not in there:
        raise ExperimentError(
            f"--out is {folder}, which is no experiment's folder and is not empty; it must be one of them, or a path"
            " where nothing is yet."
        )
    return None


def next_start(folder: Path, plan: Plan, last: Experiment | None, again: bool) -> Experiment:
    """The experiment under a plan, with what is there already.

    Args:
        folder: Its folder, absolute.
        plan: Of the grid of today.
        last: What `last_start` found.
        again: Whether rows whose code or data have changed are run once more, in folders of their own.

    Raises:
        ExperimentError: There are such rows, and not `again`.
    """
    begun = [row for row in last.plan.rows if last.run_dir(row).exists()] if last else []
    names = _names_by_mark(folder / RUNS) | {row.mark: row.name for row in begun}
    plan = replace(plan, rows=tuple(replace(row, name=names.get(row.mark, row.name)) for row in plan.rows))
    if last is None:
        return Experiment(folder, plan)
    marks = {_given(row): row.mark for row in plan.rows}
    changed = [row for row in begun if marks.get(_given(row), row.mark) != row.mark]
    if changed and not again:
        raise ExperimentError(_refusal(folder, last.plan, plan, len(changed)))
    kept = {row.name for row in plan.rows}
    return Experiment(folder, plan, {name: why for name, why in last.failures.items() if name in kept})


def _names_by_mark(runs: Path) -> dict[str, str]:
    """Names of the rows that have a folder: one that is only called otherwise now keeps it, whichever start made it."""
    names = sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    return {found[1]: name for name in names if (found := MARKED.fullmatch(name)) and NAME.holds(name)}


def no_longer_there(last: Experiment | None, experiment: Experiment) -> list[Row]:
    """Rows of the last start that have a folder, and that the grid no longer has."""
    names = {row.name for row in experiment.plan.rows}
    return [row for row in last.plan.rows if row.name not in names and last.run_dir(row).exists()] if last else []


def write_down(experiment: Experiment, grid: Path) -> None:
    """Make what an experiment's folder has before its first row."""
    for name in (RUNS, LOGS):
        (experiment.folder / name).mkdir(exist_ok=True)
    copy = experiment.folder / GRID
    if not (copy.exists() and copy.samefile(grid)):
        shutil.copyfile(grid, copy)
    save(experiment)


def _given(row: Row) -> str:
    """A row as the grid gives it, whatever code and data make of that."""
    return json.dumps([row.config, clients_of(row)], sort_keys=True)


def _refusal(folder: Path, last: Plan, plan: Plan, count: int) -> str:
    what = "the code" if last.code != plan.code else "their data, or defaults in pyproject.toml,"
    rows, they = ("1 row", "it") if count == 1 else (f"{count} rows", "them")
    return (
        f"{folder} has {rows} of this grid from before {what} changed, so that new rows would not be comparable;"
        f" --again runs {they} once more beside the old, which stay, and another --out keeps both apart."
    )
