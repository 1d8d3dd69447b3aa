"""What a start says and does, with an engine that only writes folders."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments import start
from experiments.__main__ import main
from experiments.checks import plan_of
from experiments.plan import Experiment, Row, load, save
from tests.experiments.folders import GRID, does_all, leave, write_grid

Engine = Callable[[Experiment, Sequence[Row], int | None], dict[str, str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "an experiment"


def call(monkeypatch: pytest.MonkeyPatch, *words: Any, engine: Engine | None = None) -> int:
    """The exit code of `python -m experiments run` with these words."""
    monkeypatch.setattr("experiments.start.run_rows", engine)
    monkeypatch.setattr(sys, "argv", ["experiments", "run", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_dry_run_says_what_would_be_done(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = write_grid(tmp_path, axes={**GRID["axes"], "method": ["ce", {"name": "平滑", "method": "elr"}]})
    assert call(monkeypatch, grid, "--out", out, "--dry-run") == 0
    assert not out.exists()
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "label  setting    seed  state    would",
        "ce     symmetric  1     missing  start",
        "ce     pairflip   1     missing  start",
        "平滑   symmetric  1     missing  start",
    ]
    assert said[9:] == [
        "",
        "8 rows, 0 of them done.",
        "How long that takes will be known after the first rounds. What fits on this machine, and how fast it trains:",
        "python -m probe --clients 4 -c \"model='cnn' method='ce' image-size=16\"",
    ]


def test_a_dry_run_knows_what_is_there(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = write_grid(tmp_path)
    experiment = Experiment(out, plan_of(grid, out))
    first, second, third, *_ = experiment.plan.rows
    leave(experiment, first, 3, seconds=200)
    leave(experiment, second, 1, seconds=200, how="")
    leave(experiment, third, 1, seconds=200, how="stopped")
    experiment.failures = {third.name: "out of memory"}
    save(experiment)
    assert call(monkeypatch, grid, "--out", out, "--dry-run", "--jobs", 2) == 0
    said = capsys.readouterr().out
    found = re.findall(r"(done|unfinished|failed|missing) +(keep|resume|try again|start)$", said, re.MULTILINE)
    assert found == [("done", "keep"), ("unfinished", "resume"), ("failed", "try again"), *[("missing", "start")] * 5]
    # 5 rows of three rounds, 2 of two, 10 s to start each: 19 * 200 + 70 seconds, two at a time.
    assert "\n8 rows, 1 of them done.\nAbout 32 min left, 2 rows at a time.\n" in said
    assert call(monkeypatch, grid, "--out", out, "--dry-run", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert (whole["number"], whole["done"], whole["seconds-left"]) == (8, 1, 3870)
    assert whole["rows"][2] == {
        "name": third.name, "label": "elr", "setting": "symmetric", "seed": 1, "mark": third.mark, "state": "failed",
        "would": "try again",
    }  # fmt: skip
    assert load(out) == experiment


def test_a_start_does_what_is_left_and_says_how_it_went(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int | None]] = []

    def engine(experiment: Experiment, rows: Sequence[Row], jobs: int | None) -> dict[str, str]:
        asked.append((len(rows), jobs))
        assert experiment.lock is not None
        assert load(out).plan == experiment.plan  # written down before anything starts
        done, failed, unfinished, *_ = rows
        does_all(experiment, [done], jobs)
        leave(experiment, unfinished, 1, how="")
        return {failed.name: "out of\nmemory"}

    grid = write_grid(tmp_path)
    assert call(monkeypatch, grid, "--out", out, "--jobs", 3, engine=engine) == 1
    said = capsys.readouterr()
    rows = load(out).plan.rows
    assert said.err == "8 rows, 0 of them done.\n"
    assert said.out.splitlines() == [
        f"{out}: 8 rows, 1 of them done.",
        f"Failed: {rows[1].name}: out of | memory ({out / 'logs' / rows[1].name}.log)",
        f"Not done: {', '.join(row.name for row in rows[2:])}.",
        "The same command goes on.",
        f"Table: python -m experiments table '{out}'",
    ]
    assert load(out).failures == {rows[1].name: "out of\nmemory"}
    assert call(monkeypatch, grid, "--out", out, engine=does_all_anew) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 8 rows, 8 of them done.\nTable: ")
    assert load(out).failures == {}
    assert call(monkeypatch, grid, "--out", out, engine=engine) == 0  # nothing is left to ask the engine for
    assert asked == [(8, 3)]
    assert (out / "grid.toml").read_bytes() == grid.read_bytes()


def does_all_anew(experiment: Experiment, rows: Sequence[Row], jobs: int | None) -> dict[str, str]:
    """As resuming does it: what is unfinished is finished in its folder."""
    assert len(rows) == 7
    for row in rows:
        if (folder := experiment.run_dir(row)).exists():
            folder.rename(folder.with_name("aside"))
        leave(experiment, row, 3)
    return {}


def test_a_smaller_grid_names_what_it_lost(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, write_grid(tmp_path), "--out", out, engine=does_all) == 0
    lost = [row.name for row in load(out).plan.rows if row.seed == 2]
    capsys.readouterr()
    smaller = write_grid(tmp_path, seeds=[1])
    assert call(monkeypatch, smaller, "--out", out, engine=does_all) == 0
    assert f"No longer in the grid, but still in {out / 'runs'}: {', '.join(lost)}.\n" in capsys.readouterr().err
    assert call(monkeypatch, smaller, "--out", out, engine=does_all) == 0
    assert "No longer" not in capsys.readouterr().err
    assert call(monkeypatch, write_grid(tmp_path), "--out", out, engine=does_all) == 0
    assert capsys.readouterr().err == "8 rows, 8 of them done.\n"


@pytest.mark.parametrize("damaged", [False, True])
def test_rows_with_another_name_are_found_again(
    damaged: bool, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a grid that did not have them, or without the file that named them."""
    axes = {"method": [{"name": "first", "method": "ce"}, "elr"]}
    assert call(monkeypatch, write_grid(tmp_path, axes=axes, baseline=None), "--out", out, engine=does_all) == 0
    axes["method"][0]["name"] = "later"  # type: ignore[index]
    if damaged:
        (out / "experiment.json").unlink()
    else:
        less = write_grid(tmp_path, axes={"method": ["elr"]}, baseline=None)
        assert call(monkeypatch, less, "--out", out, engine=does_all) == 0
    capsys.readouterr()
    assert call(monkeypatch, write_grid(tmp_path, axes=axes, baseline=None), "--out", out, engine=does_all) == 0
    assert capsys.readouterr().err == "4 rows, 4 of them done.\n"
    assert [row.name[:6] for row in load(out).plan.rows if row.label == "later"] == ["first-", "first-"]


def test_other_defaults_reach_the_copy_that_rows_run_from(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = write_grid(tmp_path)
    (out / "code").mkdir(parents=True)
    (out / "grid.toml").touch()
    (out / "code" / "pyproject.toml").write_text("# of the last start\n", encoding="utf-8")
    assert call(monkeypatch, grid, "--out", out, engine=does_all) == 0
    assert not (out / "code").exists()


def test_changed_code_needs_a_word(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = write_grid(tmp_path)
    assert call(monkeypatch, grid, "--out", out, engine=does_all) == 0
    before = load(out)
    monkeypatch.setattr("experiments.checks.code_fingerprint", lambda: "another")
    for words in ([], ["--dry-run"]):
        capsys.readouterr()
        assert call(monkeypatch, grid, "--out", out, *words, engine=does_all) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"python -m experiments: {out} has 8 rows of this grid from before the code changed")
        assert load(out) == before
    assert call(monkeypatch, grid, "--out", out, "--again", engine=does_all) == 0
    assert len(list((out / "runs").iterdir())) == 16


@pytest.mark.parametrize("dry", [True, False])
def test_faults_start_and_write_nothing(
    dry: bool, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = write_grid(tmp_path, base={"lr": 1}, seeds=[1, 1])
    assert call(monkeypatch, grid, "--out", out, *["--dry-run"] * dry) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"python -m experiments: {grid}: ") for line in lines)
    assert not out.exists()


def test_somebody_elses_folder_stays_as_it_is(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    (out / "thesis.tex").touch()
    assert call(monkeypatch, write_grid(tmp_path), "--out", out) == 1
    assert "is no experiment's folder and is not empty" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_json_is_of_a_dry_run(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, write_grid(tmp_path), "--out", out, "--json") == 1
    assert "--json goes with --dry-run" in capsys.readouterr().err
    assert not out.exists()


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def engine(experiment: Experiment, rows: Sequence[Row], jobs: int | None) -> dict[str, str]:
        raise KeyboardInterrupt

    assert call(monkeypatch, write_grid(tmp_path), "--out", out, engine=engine) == 130
    assert capsys.readouterr().err.endswith("Stopped; the same command goes on.\n")
    assert call(monkeypatch, write_grid(tmp_path), "--out", out, engine=does_all) == 0  # the lock is free


def test_a_probe_that_must_be_quoted() -> None:
    row = Row("", "", "", 1, {"method-args": "name='$x'"}, {}, "")
    assert start._probe(row) == """python -m probe --clients 2 -c 'method-args="name='"'"'$x'"'"'"'"""


def test_what_a_killed_start_left_of_rows_that_are_done_goes(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = write_grid(tmp_path, keep="results", seeds=[1])
    experiment = Experiment(out, plan_of(grid, out))
    out.mkdir()
    save(experiment)
    done, begun, *_ = experiment.plan.rows
    for row, how in ((done, "finished"), (begun, "")):
        leave(experiment, row, 3, how=how)
        (experiment.run_dir(row) / "checkpoints").mkdir()
        (experiment.run_dir(row) / "model.safetensors").touch()
    call(monkeypatch, grid, "--out", out, engine=lambda *_: {})
    names = [sorted(path.name for path in experiment.run_dir(row).iterdir()) for row in (done, begun)]
    rest = ["config.toml", "metrics.jsonl", "run.json"]
    assert names == [rest, ["checkpoints", *rest[:2], "model.safetensors", rest[2]]]
