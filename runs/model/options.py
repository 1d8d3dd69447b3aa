"""Parameters that the commands about models share."""

from pathlib import Path
from typing import Annotated

import typer

from runs.model.which import Which

RunArgument = Annotated[str, typer.Argument(metavar="RUN", show_default=False)]
WhichOption = Annotated[
    Which, typer.Option("--model", help="Of a run: its latest model, or that of the best round by validation.")
]


def model_named(named: str) -> Path:
    """The folder of a run, or the file, that RUN names.

    Raises:
        RunsError: There is none.
    """
    from data.user_cache import below_home
    from runs.places import run_dir  # needs Flower, which `--help` does without

    path = below_home(named)
    return path if path.is_file() else run_dir(named)
