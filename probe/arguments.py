"""How a run config is given to a command that does not start a run."""

from typing import Annotated

import typer

Config = Annotated[
    list[str] | None, typer.Option("--config", "-c", help="As for `flwr run`: key=value pairs, or a .toml file.")
]
