"""`python -m runs`: list the folders of runs, look at them, compare them, and free the disk."""

from pathlib import Path
from typing import Annotated

import typer

from data.commands import run_command_line, several_commands
from data.errors import DataError
from data.options import picture_to_write
from runs.columns import By
from runs.errors import RunsError
from runs.labels.command import EXAMPLE as LABELS_EXAMPLE
from runs.labels.command import labels
from runs.model.evaluate_command import EXAMPLE as EVALUATE
from runs.model.evaluate_command import evaluate
from runs.model.export_command import EXAMPLE as EXPORT
from runs.model.export_command import export
from runs.model.predict_command import EXAMPLE as PREDICT
from runs.model.predict_command import predict
from runs.report.command import EXAMPLE, report

app = several_commands("The folders that runs leave behind.", "python -m runs list --sort accuracy")
# What arguments are stands in each docstring: flwr needs a Typer that loses their help with Click 8.5.
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON, whose keys docs/runs.md explains.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Folder = Annotated[str, typer.Argument(metavar="DIR")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN")]


@app.command(name="list", epilog="Example: python -m runs list ~/clothing1m-fl-runs --sort accuracy --reverse")
def list_(
    folder: Folder = "",
    sort: Annotated[By, typer.Option(help="The column to sort by; the largest is last.")] = By.STARTED,
    reverse: Annotated[bool, typer.Option("--reverse", help="The largest first.")] = False,
    as_json: Json = False,
) -> None:
    """List all runs of a folder.

    DIR is a folder of runs, or that of an experiment; by default ~/clothing1m-fl-runs.
    """
    from runs.listing import list_runs  # `--help` does without Flower
    from runs.places import folder_of_runs

    list_runs(folder_of_runs(folder), sort, reverse, as_json)


@app.command(epilog="Example: python -m runs show my-run --json | jq -r .status")
def show(run: RunArgument, as_json: Json = False) -> None:
    """Print all that is known of one run; exit code 0 whatever its status is.

    RUN is the folder of a run, or the name of one in ~/clothing1m-fl-runs.
    """
    from runs.places import run_named
    from runs.showing import show as show_run

    show_run(run_named(run), as_json)


@app.command(epilog="Example: python -m runs compare my-run my-other-run --plot curves.png")
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...")],
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw the accuracies into this .png, .svg or .pdf file.", callback=picture_to_write),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the settings in which runs differ, their accuracies, and why one may not compare them.

    RUN is the folder of a run, or the name of one in ~/clothing1m-fl-runs; name at least two.
    """
    from runs.comparing import compare as compare_runs
    from runs.places import run_named

    compare_runs([run_named(one) for one in runs], plot, as_json)


@app.command(epilog="Example: python -m runs remove --older-than 30d --keep-results")
def remove(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN...]")] = None,
    older_than: Annotated[
        str, typer.Option(help="Remove finished runs of which no file has changed for that long: 12h, 30d, 8w.")
    ] = "",
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="With --older-than: also those that could still be resumed.")
    ] = False,
    keep_results: Annotated[
        bool, typer.Option("--keep-results", help="Remove checkpoints, clients' state and weights alone.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Remove runs from the disk, after a question; a run that is running stays.

    RUN is the folder of a run, or the name of one in ~/clothing1m-fl-runs, finished or not; repeatable. With
    --older-than, RUN is the one folder whose old runs are removed; by default ~/clothing1m-fl-runs.
    """
    from runs.removing import remove as remove_runs

    remove_runs(runs or [], older_than, unfinished, keep_results, yes)


@app.command(epilog="Example: python -m runs caches --clear decoded")
def caches(
    clear: Annotated[str, typer.Option(metavar="NAME", help="Delete the one of this name, after a question.")] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Print what the app keeps outside of runs' folders, and how much disk it takes.

    That is what can be made again, in ~/.cache/clothing1m-fl, and what clients of real nodes remember of their images,
    in ~/clothing1m-fl-state.
    """
    from runs.caches import clear as clear_cache
    from runs.caches import list_caches

    if clear:
        clear_cache(clear, yes)
    else:
        list_caches(as_json)


app.command(epilog=EXAMPLE)(report)
app.command(epilog=EVALUATE)(evaluate)
app.command(epilog=PREDICT)(predict)
app.command(epilog=LABELS_EXAMPLE)(labels)
app.command(epilog=EXPORT)(export)


def main() -> None:
    run_command_line(app, "python -m runs", (RunsError, DataError), any_files="predict")


if __name__ == "__main__":
    main()
