"""What `--help` shows: every parameter and an example, at once."""

import importlib
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup, TyperOption

from benchmarks.tools.command import app_of
from data.errors import DataError

ROOT = Path(__file__).parents[1]
BENCHMARKS = [
    path.with_suffix("").relative_to(ROOT).as_posix().replace("/", ".").removesuffix(".__main__")
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if "run_command(main, __doc__)" in path.read_text(encoding="utf-8")
]
COMMANDS = [
    "data", "deploy", "probe", "config", "runs", "client_app.corrected_labels", "experiments", *BENCHMARKS,
]  # fmt: skip
# Paths that are read; every other one is written, and must refuse what is no file or no folder.
READ = {
    "data import folder DIR", "data import folder --groups",
    "data import splits DIR", "data import splits --noisy-train",
    "data import splits --clean-train", "data import splits --val", "data import splits --test",
    "data import splits --groups",
    "data import animal10n DIR", "data import food101n DIR", "data import food101n --food101",
    "data import webvision DIR",
    "data import cifar10 DIR", "data import cifar10 --human-labels",
    "data import cifar100 DIR", "data import cifar100 --human-labels",
    "data match DIR", "data show DIR", "data check DIR", "data pack DIR", "data partition DIR",
    "client_app.corrected_labels DIR", "client_app.corrected_labels --base", "benchmarks.data --lists",
    "benchmarks.client.start --checkout", "experiments run GRID", "experiments table DIR",
    "benchmarks.methods.cost --grid", "runs labels --data",
}  # fmt: skip
AT_ONCE = [*COMMANDS[:7], "benchmarks.gpu"]  # their help is shown without what takes seconds to import
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
    yield from parts([name], command)


def parts(words: list[str], command: Any) -> Iterator[tuple[list[str], TyperGroup | TyperCommand]]:
    """A command, and what is below it."""
    assert isinstance(command, TyperGroup | TyperCommand)
    yield words, command
    if isinstance(command, TyperGroup):
        for word, part in command.commands.items():
            yield from parts([*words, word], part)


def test_all_benchmarks_are_here() -> None:
    assert len(BENCHMARKS) == 22


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_described_and_every_command_has_an_example(name: str) -> None:
    for words, command in commands(name):
        example = f"python -m {' '.join(words)}"
        assert example in f"{command.help} {command.epilog}", words
        for parameter in command.params:
            if isinstance(parameter, TyperOption):
                assert re.match(r"\S.{8}", parameter.help or ""), (words, parameter.name)
            else:
                assert f"{str(parameter.metavar).strip('[.]')} is" in f"{command.help}", (words, parameter.name)


def paths(name: str) -> Iterator[tuple[str, TyperGroup | TyperCommand, Any]]:
    """Every path of a command's parts: the words that call it and the parameter's name, the part, the parameter."""
    for words, command in commands(name):
        for parameter in command.params:
            if parameter.type.name == "path":
                called = parameter.opts[0] if isinstance(parameter, TyperOption) else parameter.metavar
                yield f"{' '.join(words)} {called}", command, parameter


def in_the_way(folder: Path) -> Iterator[tuple[Path, str]]:
    """What nothing may be written over, and what a sentence calls it; links to it as well. Never a real device."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    for kind in ("pipe", "socket"):
        (folder / f"link to {kind}").symlink_to(folder / kind)
        yield folder / kind, f"which is a {kind}; it must be "
        yield folder / f"link to {kind}", f"which is a {kind}; it must be "
    (folder / "loop").symlink_to(folder / "loop")
    yield folder / "loop", "which cannot be written: Too many levels of symbolic links."
    yield folder / ("x" * 300), "which cannot be written: File name too long."


def refusal_of(command: Any, parameter: Any, path: Path) -> str:
    """What a parameter says of a path; empty if it takes it."""
    try:
        parameter.process_value(command.context_class(command), str(path))
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_written_over_what_is_no_file(name: str, tmp_path: Path) -> None:
    """A new path of a command is in `READ`, or it refuses all of this before the command does anything."""
    (tmp_path / "file.png").touch()
    (tmp_path / "folder.png").mkdir()
    wrong = list(in_the_way(tmp_path))
    for words, command, parameter in paths(name):
        if words in READ:
            continue
        refusal = partial(refusal_of, command, parameter)

        for path, sentence in wrong:
            assert refusal(path).startswith(f"{words.rpartition(' ')[2]} is "), words
            assert sentence in refusal(path), words
        assert not refusal(tmp_path / "new.png")
        refused = [
            kind
            for kind in ("file", "folder")
            if f"which is a {kind}; it must be a " in refusal(tmp_path / f"{kind}.png")
        ]
        assert len(refused) == 1, words  # the other one is what is written
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


MAKES_FOLDERS = {"data pack --out"}  # for the file that it writes; whoever writes a folder does so for that


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_takes_no_file_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the work, not when its result is to be written."""
    (tmp_path / "folder.png").mkdir()
    for words, command, parameter in paths(name):
        if words in READ:
            continue
        refusal = partial(refusal_of, command, parameter)

        writes_file = "which is a folder" in refusal(tmp_path / "folder.png")
        makes_folders = not writes_file or words in MAKES_FOLDERS
        said = refusal(tmp_path / "nowhere" / "new.png")
        assert said.endswith("nowhere is not a folder; it must be one.") is not makes_folders, words
        assert bool(said) is not makes_folders, words
        with monkeypatch.context() as patched:
            patched.setattr("data.options.os.access", lambda *_: False)
            assert f"nothing can be written into {tmp_path}; it must be" in refusal(tmp_path / "new.png"), words
            if makes_folders:
                assert f"nothing can be written into {tmp_path}; it" in refusal(tmp_path / "no" / "new.png"), words


# One sentence, from the command itself, that names what is there; nothing is read before that.
WRITING = [
    ["data", "sample", "--out"], ["data", "partition", "absent", "--clients", "2", "--out"],
    ["data", "show", "absent", "--plot"], ["client_app.corrected_labels", "absent"], ["deploy", "rotate"],
    ["benchmarks.gpu", "--out"], ["experiments", "run", "absent", "--out"],
    ["runs", "compare", "absent", "--plot"], ["runs", "report", "absent", "--out"],
    ["runs", "labels", "absent", "--out"], ["runs", "evaluate", "absent", "--worst"],
    ["runs", "predict", "absent", "absent", "--contact-sheet"], ["runs", "export", "absent", "--onnx"],
    ["runs", "export", "absent", "--torch-export"], ["runs", "export", "absent", "--hub"],
]  # fmt: skip


@pytest.mark.parametrize("words", WRITING, ids=lambda words: words[0])
def test_a_pipe_in_the_way_is_one_sentence(words: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    rest = ["node-1"] if words[0] == "deploy" else []
    done = subprocess.run(
        [sys.executable, "-m", *words, str(tmp_path / "pipe"), *rest],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"is {tmp_path / 'pipe'}, which is a pipe; it must be a f" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", AT_ONCE)
def test_help_needs_nothing_that_takes_seconds_to_import(name: str) -> None:
    for words, command in commands(name):
        done = subprocess.run(
            [sys.executable, "-c", HELP, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=600,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)
        assert all(part in done.stdout for part in ("Usage:", "python -m", *(command.help or "").split()[:2]))
        paragraphs = [" ".join(lines.split()) for lines in (command.help or "").split("\n\n")]
        if name not in BENCHMARKS:  # whose docstrings are set as they are
            assert all(words[:150] in done.stdout for words in paragraphs)  # on one line: no line ends of docstrings
