"""How every benchmark becomes a command: its docstring is the help."""

from collections.abc import Callable

import typer


def app_of(main: Callable[..., None], about: str | None) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(help=about)(main)
    return app


def run_command(main: Callable[..., None], about: str | None) -> None:
    """Parse the command line and call `main`."""
    app_of(main, about)()
