"""What `--help` shows: every parameter and an example, at once."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup, TyperOption

from benchmarks.tools.command import app_of

ROOT = Path(__file__).parents[1]
BENCHMARKS = [
    path.with_suffix("").relative_to(ROOT).as_posix().replace("/", ".").removesuffix(".__main__")
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if "run_command(main, __doc__)" in path.read_text(encoding="utf-8")
]
COMMANDS = ["data", "deploy", "probe", "config", "client_app.corrected_labels", *BENCHMARKS]
AT_ONCE = [*COMMANDS[:5], "benchmarks.gpu"]  # their help is shown without what takes seconds to import
HELP = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__")
except SystemExit as end:
    assert not end.code
assert not {"torch", "matplotlib", "ray", "flwr"} & sys.modules.keys()
"""


def commands(name: str) -> Iterator[tuple[list[str], TyperGroup | TyperCommand]]:
    """A command and its sub-commands, each with the words that call it."""
    file = ROOT / name.replace(".", "/") / "__main__.py"
    module = importlib.import_module(f"{name}.__main__" if file.exists() else name)
    app = app_of(module.main, module.__doc__) if name in BENCHMARKS else module.app
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup | TyperCommand)
    yield [name], command
    if isinstance(command, TyperGroup):
        for word, part in command.commands.items():
            assert isinstance(part, TyperCommand)
            yield [name, word], part


def test_all_benchmarks_are_here() -> None:
    assert len(BENCHMARKS) == 14


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_described_and_every_command_has_an_example(name: str) -> None:
    for words, command in commands(name):
        example = f"python -m {' '.join(words)}"
        assert example in f"{command.help} {command.epilog}", words
        for parameter in command.params:
            if isinstance(parameter, TyperOption):
                assert re.match(r"\S.{8}", parameter.help or ""), (words, parameter.name)
            else:
                assert f"{parameter.metavar} is" in f"{command.help}", (words, parameter.name)


@pytest.mark.parametrize("name", AT_ONCE)
def test_help_needs_nothing_that_takes_seconds_to_import(name: str) -> None:
    for words, command in commands(name):
        done = subprocess.run(
            [sys.executable, "-c", HELP, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stderr)
        assert all(part in done.stdout for part in ("Usage:", "python -m", *(command.help or "").split()[:2]))
