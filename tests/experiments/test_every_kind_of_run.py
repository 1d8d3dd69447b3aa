"""Every command of `runs` and `experiments` on real runs of every kind: a head alone, two networks, no test set."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import experiments.__main__
import runs.__main__
from experiments.checks import plan_of
from experiments.plan import Experiment, Plan, Row, save
from tests.experiments.folders import write_grid
from tests.fakes import rounds_of, run_in_process
from tests.odd_values import is_a_sentence

SMALL = {"model": "cnn", "image-size": 16, "batch-size": 8, "num-server-rounds": 2, "inspection": "before"}
OWN = {"eval-split": "own", "holdout-fraction": 0.25, "fraction-evaluate": 1.0}
# By kind: the config, what accuracies are on, and how many rounds.
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "clean test"),
    "head": ({"trainable": "head"}, "clean test"),
    "two-networks": ({"method": "co-teaching"}, "clean test"),
    "clean-val": ({"test-split": "none"}, "clean validation"),
    "noisy": (
        {"test-split": "none", "val-split": "noisy", **OWN, "method": "co-teaching"},
        "clients' held-out images (their own labels)",
    ),
    "label-wave": (
        {"test-split": "none", "val-split": "label-wave", "fraction-train": 1.0, "num-server-rounds": 5,
         "holdout-fraction": 0.25, "trainable": "head"},
        "held-out images (their own labels) of the next round's clients",
    ),
    "nothing": ({"test-split": "none", "val-split": "none"}, "nothing"),
}  # fmt: skip
TESTED = ("plain", "head", "two-networks")
# Words of each command; RUN is a run, OTHER one with a test set, and OUT a folder that is not there.
COMMANDS = {
    "list": "list PARENT --sort accuracy",
    "list, json": "list PARENT --json",
    "show": "show RUN",
    "show, json": "show RUN --json",
    "compare": "compare RUN OTHER --plot OUT/curves.png",
    "compare, json": "compare OTHER RUN --json",
    "report": "report RUN OTHER --out OUT/page.html",
    "evaluate": "evaluate RUN --split clean_val --confusion OUT/confusion.png --worst OUT/worst.png",
    "predict": "predict RUN PHOTO --contact-sheet OUT/photo.png",
    "export": "export RUN --onnx OUT/model.onnx --torch-export OUT/model.pt2 --hub OUT/hub",
    "labels": "labels RUN --out OUT/labels",
    "caches": "caches",
    "remove": "remove RUN --keep-results --yes",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    """All runs beside each other."""
    out = tmp_path_factory.mktemp("runs")
    for kind, (values, _) in KINDS.items():
        run_in_process(out, data_dir=str(tiny_sample), run_name=kind, **{**SMALL, **values})
    return out


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: its exit code, and what it said."""

    def called(main: Callable[[], None], *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return called


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_tested_is_null(kind: str, folders: Path) -> None:
    assert all((line["test-accuracy"] is not None) == (kind in TESTED) for line in rounds_of(folders / kind))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_of_runs_works(
    kind: str, command: str, folders: Path, tmp_path: Path, tiny_sample: Path, call: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "out").mkdir()
    shutil.copytree(folders / kind, run := tmp_path / "runs" / kind, symlinks=True)
    shutil.copytree(folders / "plain", other := tmp_path / "runs" / "other", symlinks=True)
    photo = next(path for path in sorted(tiny_sample.rglob("*.jpg")))
    places = {"RUN": run, "OTHER": other, "PARENT": run.parent, "PHOTO": photo}
    words = [str(places.get(word, word)).replace("OUT", str(tmp_path / "out")) for word in COMMANDS[command].split()]
    code, out, error = call(runs.__main__.main, *words)
    assert code == 0, error
    on = KINDS[kind][1]
    if command == "list":
        assert ("accuracy on" in out) == (on != "clean test")
    if command in ("show", "compare") and on not in ("clean test", "nothing"):
        assert on in " ".join(out.split())
    if command == "show, json":
        found = json.loads(out)
        assert found["accuracy-on"] == on
        assert (found["accuracy"] is None) == (on == "nothing")
    for path in (tmp_path / "out").iterdir():
        assert path.is_dir() or path.stat().st_size > 1000


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "json"])
def test_all_of_them_are_in_one_table(format: str, folders: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    rows = tuple(Row(kind, kind, "a setting", 1, {}, {}, "0" * 8) for kind in KINDS)
    experiment = Experiment(tmp_path / "first", Plan("first", rows, baseline="plain"))
    experiment.folder.mkdir()
    shutil.copytree(folders, experiment.folder / "runs", symlinks=True)
    save(experiment)
    code, out, error = call(
        experiments.__main__.main, "table", experiment.folder, "--format", format, "--target", "0.1"
    )
    assert code == 1  # most may not be compared with the baseline
    assert all(is_a_sentence(one) for one in error.splitlines())
    assert "What accuracies are measured on differs" in error
    flat = " ".join(out.split())
    for on in {on for _, on in KINDS.values()} - {"nothing", "clean test"}:
        assert on in flat
    code, out, error = call(runs.__main__.main, "report", experiment.folder, "--out", tmp_path / "page.html")
    assert code == 0, error
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a setting, accuracy on clean validation" in page


def test_a_grid_has_rows_of_every_kind(tmp_path: Path, tiny_sample: Path) -> None:
    """And each is another row: what a run is measured on is a part of what it is."""
    axis = [{"name": kind, **values} for kind, (values, _) in KINDS.items()]
    base = {**SMALL, "data-dir": str(tiny_sample)}
    grid = write_grid(tmp_path, seeds=[1], base=base, axes={"kind": axis}, baseline="plain")
    found = plan_of(grid, tmp_path / "out")
    assert [row.label for row in found.rows] == [*KINDS]
    assert len({row.mark for row in found.rows}) == len(KINDS)
