"""`python -m experiments`: many runs from one file, and the table of them."""

from pathlib import Path
from typing import Annotated

import typer

from config.errors import ConfigError
from data.commands import LONGEST, run_command_line, several_commands
from data.errors import DataError
from data.options import folder_to_write
from data.text import one_line
from experiments import table_command
from experiments.errors import ExperimentError
from runs.errors import RunsError

app = several_commands(
    "Many runs from one file, and the table of them.", "python -m experiments run grid.toml --out ~/experiments/first"
)


@app.callback()
def experiments() -> None:
    """Do many runs, and compare them."""


@app.command(epilog="Example: python -m experiments run experiments/example.toml --out ~/experiments/example --dry-run")
def run(
    grid: Annotated[Path, typer.Argument(metavar="GRID")],
    out: Annotated[
        Path, typer.Option("--out", help="The experiment's folder; the same one goes on.", callback=folder_to_write)
    ],
    jobs: Annotated[
        int | None,
        typer.Option(help="Rows at a time.", min=1, max=1000, show_default="as many as memory and cores allow"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long that would take; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: as JSON.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run rows anew whose code or data have changed, beside the old ones.")
    ] = False,
) -> None:
    """Do all rows of a grid that are not done yet, each as a run of its own.

    GRID is a TOML file; docs/experiments.md explains its keys. It is checked in whole before the first row starts.
    Stopped at any time and started again, the same command keeps what is done and resumes the rest. The exit code is 1
    if a row failed.
    """
    from experiments import start  # imports torch, which `--help` does without

    folder = out.expanduser().absolute()
    try:
        if as_json and not dry_run:
            raise ExperimentError("--json goes with --dry-run alone: the runs' own folders say how they went.")
        if dry_run:
            typer.echo(start.dry(grid, folder, jobs, again, as_json))
            return
        experiment = start.do(grid, folder, jobs, again, lambda sentence: typer.echo(sentence, err=True))
    except ExperimentError as error:
        for sentence in error.args:
            typer.echo(f"python -m experiments: {one_line(sentence, LONGEST)}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Stopped; the same command goes on.", err=True)
        raise typer.Exit(130) from None
    said, all_done = start.conclusion(experiment)
    typer.echo(said)
    if not all_done:
        raise typer.Exit(1)


app.command(epilog=table_command.EXAMPLE)(table_command.table)


def main() -> None:
    run_command_line(app, "python -m experiments", (ConfigError, DataError, ExperimentError, RunsError))


if __name__ == "__main__":
    main()
