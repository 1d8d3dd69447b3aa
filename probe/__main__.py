"""`python -m probe`: how many clients should train at once on this machine."""

from typing import Annotated

import typer

from config.errors import ConfigError
from data.commands import run_command_line
from data.errors import DataError
from probe.arguments import Config
from probe.errors import NoRoomError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

MOST = 10**9


@app.command(epilog="Example: python -m probe --clients 100 -c \"model='resnet18' batch-size=32\"")
def probe(
    config: Config = None,
    clients: Annotated[int, typer.Option(help="Number of clients (num-supernodes).", min=1, max=MOST)] = 10,
    steps: Annotated[
        int | None, typer.Option(help="Batches of each client; 10 on a CPU, 50 on a GPU.", min=1, max=MOST)
    ] = None,
) -> None:
    """Train a few steps of 1, 2, 4, ... clients at once on random images, and recommend how many to run.

    Each client is a process that runs the app's own training loop with the config's model, method, batch size, image
    size and precision. Memory and speed do not depend on what images show, so no dataset is needed.
    """
    from probe import session  # imports torch, which `--help` does without

    try:
        session.probe(config or [], clients, steps)
    except NoRoomError as error:
        raise NoRoomError(f"not even one client fits: {error}.") from None


def main() -> None:
    run_command_line(app, "python -m probe", (ConfigError, DataError, NoRoomError))


if __name__ == "__main__":
    main()
