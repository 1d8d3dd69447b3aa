"""`python -m runs labels`."""

from pathlib import Path
from typing import Annotated

import typer

from data.options import folder_to_write

EXAMPLE = "Example: python -m runs labels ~/clothing1m-fl-state --top 100"
MOST = 400  # `data.contact_sheet.MOST`, which imports Pillow


def labels(
    run: Annotated[str, typer.Argument(metavar="RUN", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write, which must be new or empty; by default label-report beside the clients' states.",
            callback=folder_to_write,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Where the images are now: a release, a pack or a folder per class; by default where clients had them."
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Images on each contact sheet.", min=1, max=MOST)] = 48,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: JSON, which docs/clients.md explains.")] = False,
) -> None:
    """Rank the images of clients on this machine by how much the model doubts their labels.

    RUN is the folder or name of a run, a folder that 'state-dir' names, or one run's folder in that.

    Writes a table for a spreadsheet, a contact sheet for each class and a page that shows them. Needs a run with
    inspection='before' or 'both'. Nothing leaves this machine: on real nodes, each site runs this on its own.
    """
    from runs.labels.report import labels as write_report  # needs PyTorch, which `--help` does without

    write_report(run, out, data, top, as_json)
