"""`python -m runs list`: a table that is read by people, and by scripts."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from config.run_config import Value
from runs.columns import By
from tests.forks import ROOT
from tests.runs.folders import Said, write_run

KEYS = {
    "name", "folder", "started", "ended", "changed", "status", "reason", "preset", "method", "strategy", "seed",
    "rounds", "asked", "accuracy", "accuracy-round", "accuracy-on", "bytes", "problems",
}  # fmt: skip
ODD = "衣服 <b>[red]x[bold] 🧥\n\x1b[31m"


@pytest.fixture
def folder(home: Path) -> Path:
    """The default one, with four runs."""
    parent = home / "clothing1m-fl-runs"
    finished = [{"started": f"2026-02-0{day}T10:00:00+00:00", "how": "finished"} for day in (1, 2)]
    write_run(parent / "b", [0.5], {"method": "elr"}, finished[0], large=500_000)
    write_run(parent / "a", [0.2, 0.9, 0.3], {}, finished[1])
    config: dict[str, Value] = {"num-server-rounds": 9, "preset": "clothing1m", "method": "joint-optimization"}
    stopped = {"started": "2026-01-01T10:00:00+00:00", "how": "stopped", "reason": "A disk is full."}
    write_run(parent / "c", [], config, stopped)
    damaged = write_run(parent / ODD, record={"started": "2026-02-03T10:00:00+00:00"})
    (damaged / "config.toml").write_bytes(b"# Flower's run 1, code c0de,\nseed = ")
    (damaged / "metrics.jsonl").write_bytes(b'{"round": 1, "test-accuracy": 0.125}\n{"round": 2, "te\n\x00\xff\n')
    return parent


def _names(said: Said) -> list[str]:
    return [one["name"] for one in said.json]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (By.STARTED, ["c", "b", "a", ODD]), (By.NAME, ["a", "b", "c", ODD]), (By.ACCURACY, ["c", ODD, "a", "b"]),
        (By.ROUNDS, ["c", "b", ODD, "a"]), (By.STATUS, ["a", "b", ODD, "c"]),
        (By.METHOD, [ODD, "a", "b", "c"]), (By.STRATEGY, [ODD, "a", "b", "c"]), (By.PRESET, ["a", "b", ODD, "c"]),
    ],
)  # fmt: skip
def test_it_sorts_by_any_column(by: By, names: list[str], folder: Path, runs: Callable[..., Said]) -> None:
    found = _names(runs("list", "--sort", by, "--json"))
    assert found == names
    if by in (By.NAME, By.STARTED, By.ACCURACY):  # nothing is equal
        assert _names(runs("list", "--sort", by, "--reverse", "--json")) == names[::-1]


def test_it_sorts_by_size(folder: Path, runs: Callable[..., Said]) -> None:
    sizes = [one["bytes"] for one in runs("list", "--sort", "size", "--json").json]
    assert sizes == sorted(sizes)
    assert _names(runs("list", "--sort", "size", "--reverse", "--json"))[0] == "b"


def test_the_keys_are_stable_and_numbers_are_numbers(folder: Path, runs: Callable[..., Said]) -> None:
    found = {one["name"]: one for one in runs("list", "--json").json}
    assert all(one.keys() == KEYS for one in found.values())
    best = {**found["a"], "bytes": 1, "changed": ""}
    assert best == {
        "name": "a", "folder": str(folder / "a"), "started": "2026-02-02T10:00:00+00:00", "ended": None, "changed": "",
        "status": "finished", "reason": "", "preset": "", "method": "ce", "strategy": "fedavg", "seed": 1, "rounds": 3,
        "asked": 3, "accuracy": 0.3, "accuracy-round": 3, "accuracy-on": "clean test", "bytes": 1, "problems": [],
    }  # fmt: skip
    assert (found["c"]["status"], found["c"]["reason"], found["c"]["accuracy"]) == ("stopped", "A disk is full.", None)
    odd = found[ODD]
    assert (odd["rounds"], odd["asked"], odd["accuracy"], odd["method"]) == (1, None, 0.125, None)
    damages = ["config.toml is damaged or cannot be read.", "metrics.jsonl: 2 damaged lines are left out."]
    assert odd["problems"] == damages
    assert 30_000 <= found["a"]["bytes"] < 200_000


def test_in_a_pipe_nothing_is_cut(folder: Path, runs: Callable[..., Said]) -> None:
    write_run(folder / ("n" * 200))
    table = runs("list").out
    assert "n" * 200 in table
    lines = table.splitlines()
    assert lines[0].split() == list(By)
    row = next(line for line in lines if " joint-optimization " in line)
    assert row.split()[2:8] == ["c", "clothing1m", "joint-optimization", "fedavg", "0/9", "stopped"]
    assert all(line == line.rstrip() for line in lines)
    assert "[red]x[bold]" in table
    assert "\x1b" not in table
    assert "damaged lines are left out" in table


def test_a_narrow_terminal_shows_everything(
    folder: Path, runs: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(folder / "noniid-dirichlet-0.3-joint-optimization-seed-17", record={})
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich takes the pipe for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    table = runs("list").out.split("config.toml is damaged")[0]
    plain = "".join(part.split("m", 1)[-1] for part in table.split("\x1b["))
    lines = plain.splitlines()
    assert max(map(cell_len, lines)) <= 80
    for word in ("2026-01-01", "clothing1m", "joint-optimization", "fedavg", "stopped", "interrupted", "30.0 %", "2/2"):
        assert word in plain
    assert len(lines) > 9


def test_an_empty_folder_is_one_sentence(runs: Callable[..., Said], tmp_path: Path, home: Path) -> None:
    for words in ([], [tmp_path / "home"]):
        said = runs("list", *words)
        assert (said.code, said.out.count("\n"), said.err) == (0, 1, "")
        assert said.out.startswith("There are no runs in ")
        assert runs("list", *words, "--json").json == []
    refused = runs("list", tmp_path / "nowhere")
    assert (refused.code, refused.out) == (1, "")
    assert "it must be a folder of runs, or of an experiment." in refused.err


def test_an_experiment_is_named_and_listed_by_itself(folder: Path, runs: Callable[..., Said]) -> None:
    write_run(folder / "grid" / "runs" / "row")
    (folder / "grid" / "experiment.json").touch()
    assert "Experiments, whose runs are listed by their own folder: grid." in runs("list").out
    assert _names(runs("list", folder / "grid", "--json")) == ["row"]


def test_what_a_removal_left_is_no_run_but_is_said(folder: Path, runs: Callable[..., Said]) -> None:
    (folder / "a").rename(folder / ".a.removed-0123abcd")
    said = runs("list").out
    assert "1 folder left of an interrupted removal" in said
    assert "a" not in _names(runs("list", "--json"))


MODULES = """
import sys
from runs.__main__ import app
app(["list", sys.argv[1], "--json"], standalone_mode=False)
print({"torch", "ray", "matplotlib", "scipy", "safetensors"} & sys.modules.keys(), file=sys.stderr)
"""


def test_two_hundred_runs_need_neither_pytorch_nor_their_checkpoints(tmp_path: Path) -> None:
    """Not timed, but what would take time is not there: a checkpoint that nobody may open, modules of seconds."""
    for number in range(200):
        folder = write_run(tmp_path / f"run-{number:03}", large=10)
        (folder / "checkpoints" / "round-00002.safetensors").unlink()
        os.mkfifo(folder / "checkpoints" / "round-00002.safetensors")  # whoever opens it waits
    command = [sys.executable, "-c", MODULES, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    assert done.stderr == "set()\n"
    assert done.stdout.count('"status": "finished"') == 200
