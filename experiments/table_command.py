"""`python -m experiments table`: what an experiment's rows have reached so far."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.options import file_to_write
from data.text import one_line
from data.user_cache import below_home
from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from experiments.plan import Experiment, Row
    from runs.table import Table

NAMED = 3  # rows in a sentence
EXAMPLE = "Example: python -m experiments table ~/experiments/first --format markdown"


def table(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    format: Annotated[str, typer.Option("--format", help="text, markdown, latex, csv or json.")] = "text",
    columns: Annotated[
        str, typer.Option(help="Keys of columns, joined by commas.", show_default="last,last10,picked,best-on-test")
    ] = "",
    baseline: Annotated[
        str, typer.Option(help="Label of the line that all are compared with.", show_default="the grid's")
    ] = "",
    target: Annotated[
        float | None, typer.Option(help="Add the rounds until this accuracy, 0 to 1, is reached.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write instead of the terminal.", callback=file_to_write)
    ] = None,
) -> None:
    """Show mean and standard deviation over seeds, and differences to the baseline, paired by seed.

    DIR is the folder of an experiment, at any time: rows that are not done are named and left out. Rows that are not
    comparable are never averaged or compared: each is a sentence on standard error, and the exit code is 1.
    docs/tables.md explains the numbers and has the keys of columns.
    """
    from data.whole_files import replace_file  # what follows imports torch, which `--help` does without
    from experiments.plan import load
    from runs.formats import render

    experiment = load(below_home(str(folder)).absolute())
    keys = [key.strip() for key in columns.split(",") if key.strip()]
    found = _table_of(experiment, keys, baseline, target)
    text = render(found, format)
    if out is None:
        typer.echo(text, nl=False)
    else:
        try:
            replace_file(out.expanduser(), text.encode())
        except OSError as error:
            raise ExperimentError(f"--out is {out}, which cannot be written: {error.strerror}.") from None
    for problem in found.problems:
        typer.echo(problem, err=True)
    if found.problems:
        raise typer.Exit(1)


def _table_of(experiment: "Experiment", columns: list[str], baseline: str, target: float | None) -> "Table":
    from experiments.state import run_of
    from runs.entries import Entry
    from runs.table import table_of

    entries, missing = [], []
    failures = dict(experiment.failures)
    for row in experiment.plan.rows:
        if run := run_of(experiment, row):
            if run.reason:  # which the table says where it leaves the run out
                failures.pop(row.name, None)
            entries.append(Entry(row.label, run, row.setting, row.reference, row.trials))
        else:
            missing.append(row)
    base = baseline or experiment.plan.baseline
    notes = list(_notes(replace(experiment, failures=failures), missing))
    if base not in {entry.label for entry in entries} and base in {row.label for row in missing}:
        notes.append(f"No row of {one_line(base)} is there yet, so that nothing is compared with it.")
        base = ""
    return replace(table_of(entries, columns, base, target), notes=tuple(notes))


def _notes(experiment: "Experiment", missing: list["Row"]) -> Iterator[str]:
    """On rows that have left nothing behind, and those that failed."""
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        names = "; ".join(map(_said, missing[:NAMED]))
        yield f"Not there yet: {len(missing)} of {len(experiment.plan.rows)} rows: {names}{more}."
    for row in experiment.plan.rows:
        if row.name in experiment.failures:
            yield f"Failed: {_said(row)}: {one_line(experiment.failures[row.name]).rstrip('.')}."


def _said(row: "Row") -> str:
    return ", ".join([*map(one_line, filter(None, (row.label, row.setting))), f"seed {row.seed}"])
