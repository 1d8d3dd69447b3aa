"""`python -m runs report`."""

from pathlib import Path
from typing import Annotated

import typer

from data.options import file_to_write

EXAMPLE = "Example: python -m runs report ~/experiments/first --out page.html"


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page to write.", callback=file_to_write)] = Path(
        "report.html"
    ),
    baseline: Annotated[
        str, typer.Option(help="Label of the line that others are compared with; empty: the experiment's own.")
    ] = "",
    columns: Annotated[
        str, typer.Option(help="Columns of the table by name, separated by commas; empty: the usual ones.")
    ] = "",
    title: Annotated[str, typer.Option(help="Title of the page; empty: the experiment's, or the run's name.")] = "",
) -> None:
    """Write one page about runs: table, curves, recall, confusion, clients, settings and commands.

    RUN is the folder of a run or of an experiment, or the name of a run in ~/clothing1m-fl-runs; repeatable. The page
    is one file that opens in any browser and loads nothing. It needs the extra named `report`.
    """
    from runs.report.page import write_page  # needs NumPy and more, which `--help` does without

    wanted = [name.strip() for name in columns.split(",") if name.strip()]
    size = write_page(runs, out, title=title, baseline=baseline, columns=wanted)
    typer.echo(f"{out.resolve()}: {size / 2**20:.1f} MiB; open it in a browser.")
