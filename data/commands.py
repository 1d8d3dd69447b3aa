"""How a command ends: whatever its user can cause is one sentence, not a traceback."""

import os
import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import Any

import typer
import typer.main

from data.text import one_line

LONGEST = 2000  # characters of a sentence


def several_commands(about: str, example: str) -> typer.Typer:
    """A command line of several commands, each of which is added by ``@app.command``.

    Args:
        about: What they are for.
        example: A line that works.
    """
    return typer.Typer(
        help=about,
        epilog=f"Example: {example}",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )


def run_command_line(app: typer.Typer, name: str, expected: tuple[type[Exception], ...], any_files: str = "") -> None:
    """Parse the command line and do what it says; exit code 1 with a sentence if that cannot be.

    Args:
        app: The command.
        name: What its user typed, for the sentence.
        expected: What its code raises deliberately, with one sentence each.
        any_files: The part that takes files whose names are not UTF-8, if there is one.
    """
    command = with_flowing_help(typer.main.get_command(app))
    arguments = sys.argv[1:]
    if any_files and arguments[:1] == [any_files]:
        arguments = ["" if os.path.lexists(one) else one for one in arguments]
    sentence = not_readable(arguments) or ending_in_words(lambda: command(prog_name=name), expected)
    if sentence:
        typer.echo(f"{name}: {one_line(sentence, LONGEST)}", err=True)
        raise SystemExit(1)


def with_flowing_help(command: Any) -> Any:
    """A command of Typer's, its parts as well, whose help fills any terminal: Typer keeps docstrings' line ends."""
    command.help = "\n\n".join(" ".join(lines.split()) for lines in cleandoc(command.help or "").split("\n\n"))
    for part in getattr(command, "commands", {}).values():
        with_flowing_help(part)
    return command


def not_readable(arguments: list[str]) -> str | None:
    """The sentence about an argument that is not UTF-8, which could neither be shown nor be written to a file."""
    for number, argument in enumerate(arguments, start=1):
        if not argument.isascii() and argument.encode("utf-8", "replace").decode() != argument:
            return f"argument {number} is {argument!a}, which is not UTF-8; rename what it names."
    return None


def ending_in_words(call: Callable[[], object], expected: tuple[type[Exception], ...]) -> str | None:
    """Call it; the sentence about what it raised, None if all went well. A bug of ours keeps its traceback."""
    try:
        call()
    except expected as error:
        return str(error)
    except OSError as error:  # a path that no file system takes, a folder that may not be read
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}."
    return None
