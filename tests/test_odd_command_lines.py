"""Every flag of every command with values that nobody should type: one sentence, or success; never a traceback.

A new flag joins by itself; a new command needs a line that works.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from PIL import Image

import client_app.corrected_labels
import config.__main__
import data.__main__
import deploy.__main__
import experiments.__main__
import probe.__main__
import probe.session
import runs.__main__
from data.release import open_release
from data.sample import draw_sample
from experiments.plan import Experiment, Plan, Row, save
from probe.errors import NoRoomError
from tests.data.made_cifar import cifar10_python, cifar100_python, human_labels
from tests.data.made_sets import write_animal10n, write_food101, write_food101n, write_splits, write_webvision
from tests.data.parquet_files import CLASSES, pictures, write
from tests.experiments.folders import does_all, write_grid
from tests.odd_values import is_a_sentence
from tests.runs.folders import write_run
from tests.runs.kept import write_state
from tests.runs.models import write_model

MODULES: dict[str, Any] = {
    "data": data.__main__,
    "deploy": deploy.__main__,
    "probe": probe.__main__,
    "config": config.__main__,
    "runs": runs.__main__,
    "client_app.corrected_labels": client_app.corrected_labels,
    "experiments": experiments.__main__,
}
# By command, what works; {new} is a name that is free, and + stands between several values.
WORKS: dict[str, dict[str, str]] = {
    "data sample": {
        "out": "{new}", "train": "1", "clean_train": "1", "val": "1", "test": "1", "image_size": "16", "seed": "1",
    },
    "data import folder": {"source": "photos", "out": "{new}"},
    "data import huggingface": {"name": "parquet", "out": "{new}"},
    "data import splits": {
        "source": "lists", "out": "{new}", "noisy_train": "train", "clean_train": "clean", "val": "val", "test": "test",
    },
    "data import animal10n": {"source": "animals", "out": "{new}"},
    "data import food101n": {"source": "food", "out": "{new}", "food101": "more food"},
    "data import webvision": {"source": "web", "out": "{new}", "classes": "2"},
    "data import cifar10": {
        "source": "cifar-10-batches-py", "out": "{new}", "human_labels": "CIFAR-10_human.pt", "labels": "worse",
    },
    "data import cifar100": {"source": "cifar-100-python", "out": "{new}"},
    "data match": {"folder": "renamed", "out": "{new}"},
    "data show": {"folder": "release"},
    "data check": {"folder": "release", "out": "{new}"},
    "data pack": {"folder": "release", "out": "{new}"},
    "data partition": {"folder": "release", "clients": "2"},
    "deploy init": {"folder": "{new}", "superlink_host": "fl.example.org", "nodes": "1"},
    "deploy add-node": {"folder": "keys", "node": "node-9"},
    "deploy rotate": {"folder": "keys", "node": "node-1"},
    "deploy renew": {"folder": "keys"},
    "probe": {},
    "config check": {},
    "runs list": {"folder": "runs"},
    "runs show": {"run": "runs/a"},
    "runs compare": {"runs": "runs/a+runs/b"},
    "runs remove": {"runs": "runs/a"},
    "runs caches": {},
    "runs report": {"runs": "runs/a", "out": "{new}"},
    "runs evaluate": {"run": "a model.safetensors", "data": "release"},
    "runs predict": {"run": "a model.safetensors", "photos": "photos/cats"},
    "runs labels": {"run": "states", "out": "{new}"},
    "runs export": {"run": "a model.safetensors", "hub": "{new}"},
    "client_app.corrected_labels": {"folder": "release", "out": "{new}"},
    "experiments run": {"grid": "a grid.toml", "out": "{new}"},
    "experiments table": {"folder": "experiment"},
}  # fmt: skip
NUMBERS = ("", "x", "-1", "0", "1", "2", "1.5", "nan", "inf", "1e308", "1e400", "9" * 30, "9" * 5000, "true", "\udcff")
TEXTS = (
    "", " ", "x", "0", "-1", ".", "..", "~nosuchuser", "release", "photos", "a" * 300, "a/" * 3000, "\udcff", "a\nb",
    "release/images/x", "\x1b[31m", "{0} %s", "'", "a=1", "labels=1", "self=1", "seed=1", "alpha=[[[1", "=", "[", "::",
    "alpha=1e400", "alpha=nan min-size=x", "batch-size=0", "data-dir='~nosuchuser'", "weight-decay=1e300", "lr=0.1",
    "strategy='../x:y'", "x.toml", "x.png", "nowhere/x.png", "release.toml", "https://x", "é" * 200,
)  # fmt: skip


def _commands() -> Iterator[tuple[str, Any]]:
    for name, module in MODULES.items():
        for words, one in _parts(name, typer.main.get_command(module.app)):
            for parameter in one.params:
                if parameter.name != "help" and not getattr(parameter, "is_flag", False):
                    yield words, parameter


def _parts(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command, or what is below it."""
    below = getattr(command, "commands", None)
    if not below:
        yield words, command
        return
    for word, one in below.items():
        yield from _parts(f"{words} {word}", one)


PARAMETERS = list(_commands())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, photos and a deployment, in which commands run."""
    folder = tmp_path_factory.mktemp("place") / "in"
    folder.mkdir()
    draw_sample(folder / "release", train=6, clean_train=2, val=2, test=2, image_size=16, seed=1)
    draw_sample(folder / "renamed", train=6, clean_train=2, val=2, test=2, image_size=16, seed=1)
    for path in (folder / "renamed" / "images").rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    write(folder / "parquet" / "train.parquet", {"image": pictures([0, 1]), "label": [0, 1]}, CLASSES)
    for name in ("a", "b"):
        write_run(folder / "runs" / name)
    write_model(folder / "a model.safetensors", open_release(folder / "release").class_names)
    write_state(folder / "states" / "run", 0, [b"images/0/00/1,1.jpg"], [0], [1], root=folder / "release")
    for name in ("cats", "dogs"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(folder / "photos" / name / f"{number}.png")
    write_splits(folder / "lists", dict.fromkeys(("train", "clean", "val", "test"), 1))
    write_animal10n(folder / "animals", 4, 1)
    write_food101n(folder / "food")
    write_food101(folder / "more food", each=1)
    write_webvision(folder / "web", 4, 4, 4)
    cifar10_python(folder, 2)
    human_labels(folder, 2)
    cifar100_python(folder, 4)
    write_grid(folder, seeds=[1])
    (folder / "experiment").mkdir()
    save(Experiment(folder / "experiment", Plan("x", (Row("a", "ce", "", 1, {}, {}, "0" * 8),))))
    words = ["init", str(folder / "keys"), "--superlink-host", "fl.example.org", "--nodes", "1"]
    typer.main.get_command(deploy.__main__.app).main(words, standalone_mode=False)
    return folder


def _line(words: str, values: dict[str, str], new: str) -> list[str]:
    line = words.split()[1:]
    for parameter in (one for name, one in PARAMETERS if name == words):
        if (value := values.get(str(parameter.name))) is not None:
            value = new if value == "{new}" else value
            is_option = parameter.param_type_name == "option"
            line += [f"{max(parameter.opts, key=len)}={value}"] if is_option else value.split("+")
    return line


@pytest.mark.parametrize(("words", "parameter"), PARAMETERS, ids=[f"{words} {one.name}" for words, one in PARAMETERS])
def test_odd_values_end_in_words(
    place: Path, words: str, parameter: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(*_: Any) -> Any:
        raise NoRoomError("nothing is tried here")

    monkeypatch.chdir(place)
    monkeypatch.setattr(probe.session, "_needs", no_room)
    monkeypatch.setattr("experiments.start.run_rows", does_all)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    numeric = parameter.type.name.split()[0] in ("integer", "float")
    for number, value in enumerate(NUMBERS if numeric else TEXTS):
        line = _line(words, {**WORKS[words], str(parameter.name): value}, f"new-{parameter.name}-{number}")
        monkeypatch.setattr(sys, "argv", ["x", *line])
        code: Any = 0
        try:
            MODULES[words.split()[0]].main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            pytest.fail(f"{line} ends in {error!r}")
        said = capsys.readouterr()
        assert code in (0, 1, 2), line
        if code == 1 and words != "data check":
            assert said.err, line
            assert all(map(is_a_sentence, said.err.strip().splitlines())), (line, said.err)
    assert os.listdir(place.parent) == ["in"]  # noqa: PTH208


def test_what_works_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would see one refusal, of something else, everywhere."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("experiments.start.run_rows", does_all)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    for words, values in WORKS.items():
        if words in ("probe", "client_app.corrected_labels"):  # need a machine, and a run
            continue
        monkeypatch.setattr(sys, "argv", ["x", *_line(words, values, f"works-{words.replace(' ', '-')}")])
        with pytest.raises(SystemExit) as end:
            MODULES[words.split()[0]].main()
        assert not end.value.code, words


def test_every_command_has_a_line() -> None:
    assert {words for words, _ in PARAMETERS} == WORKS.keys()
