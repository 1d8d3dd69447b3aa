"""How every benchmark becomes a command: its docstring is the help."""

from collections.abc import Callable

import typer

from data.errors import DataError


def app_of(main: Callable[..., None], about: str | None) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(help=about)(main)
    return app


def run_command(main: Callable[..., None], about: str | None) -> None:
    """Parse the command line and call `main`."""
    try:
        app_of(main, about)()
    except DataError as error:
        typer.echo(error, err=True)
        raise SystemExit(1) from None
