"""A grid of 8 rows through `python -m experiments run`, which is killed, and whose SuperLink is."""

import os
import signal
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tomli_w

from benchmarks.tools.memory import marked
from data.sample import draw_sample
from experiments.plan import Experiment, load
from experiments.processes import command_of
from runs.entries import Entry
from runs.formats import render
from runs.run import read_run
from runs.table import table_of
from tests.e2e.superlink import wait_for
from tests.fakes import outcome_of, run_in_process
from tests.import_graph import ROOT

pytestmark = pytest.mark.e2e

KILLS = 2
PATIENCE = 600.0  # seconds
ROUNDS = 3  # of each row
SECONDS = 4.0  # in which a kill comes, after so many rounds in all as are drawn
BASE: dict[str, Any] = {
    "model": "cnn", "image-size": 16, "batch-size": 8, "precision": "fp32", "num-server-rounds": ROUNDS,
    "fraction-train": 0.5, "val-split": "none",
}  # fmt: skip
METHODS = ("ce", "elr")  # without and with a state of each client
NOISES = ("symmetric", "pairflip")
ROWS = 2 * len(METHODS) * len(NOISES)  # two seeds


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    draw_sample(folder / "release", train=160, clean_train=20, val=12, test=40, image_size=32, seed=3)
    noises = [{"name": f"{noise} [b]", "label-noise": noise, "label-noise-args": "rate=0.4"} for noise in NOISES]
    values = {
        "seeds": [1, 2],
        "baseline": "ce",
        "base": {**BASE, "data-dir": str(folder / "release")},
        "axes": {"method": list(METHODS), "noise": noises},
        "federation": {"num-supernodes": 4, "client-resources-num-cpus": 1, "init-args-num-cpus": 1},
    }
    path = folder / "grid.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


class Start:
    """A start of the grid, with a mark by which all that it starts can be found."""

    all: ClassVar[list["Start"]] = []

    def __init__(self, grid: Path, out: Path, *arguments: str) -> None:
        self._mark = f"START_MARK={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        command = [sys.executable, "-m", "experiments", "run", str(grid), "--out", str(out), *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, name: value}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=_hear_ctrl_c,
        )  # fmt: skip
        self.all.append(self)

    def left(self) -> list[int]:
        """Process ids of all that lives of it."""
        return marked(self._mark)

    def end(self, number: int) -> str:
        """Send a signal; what it has said by its end."""
        self.process.send_signal(number)
        return self.said()

    def said(self) -> str:
        said, _ = self.process.communicate(timeout=900)
        return said


@pytest.fixture(autouse=True)
def _nothing_is_left_by_a_test_that_fails() -> Iterator[None]:
    yield
    while Start.all:
        start = Start.all.pop()
        with start.process:
            start.process.kill()
        for pid in start.left():
            os.kill(pid, signal.SIGKILL)


def _hear_ctrl_c() -> None:
    """Tests that a shell runs in the background were told to ignore it, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[Experiment, str], Any]:
    """Of a row: the same run in one process, without Flower's processes and Ray."""

    def outcome(experiment: Experiment, name: str) -> Any:
        (row,) = (row for row in experiment.plan.rows if row.name == name)
        config: dict[str, Any] = {key.replace("-", "_"): value for key, value in row.config.items()}
        return outcome_of(run_in_process(tmp_path / name, clients=4, **config))

    return outcome


def test_a_grid_that_is_killed_at_random_moments_ends_like_an_undisturbed_one(
    grid: Path, tmp_path: Path, undisturbed: Any
) -> None:
    out = tmp_path / "experiment"
    random = np.random.default_rng([3, *b"experiments"])
    before: Start | None = None
    for rounds in sorted(random.integers(0, ROWS * ROUNDS // 2, KILLS)):
        start = Start(grid, out, "--jobs", "2")
        wait_for(lambda least=rounds: _rounds(out) >= least, PATIENCE)  # type: ignore[misc]
        time.sleep(random.uniform(0, SECONDS))
        start.end(signal.SIGKILL)
        if before:
            assert not before.left()  # this start has waited for that
        before = start
    last = Start(grid, out, "--jobs", "2")
    _kill_the_superlink(last, out)
    said = last.said()
    assert last.process.returncode == 0, said
    assert before is not None
    assert not before.left()
    assert not last.left()
    experiment = load(out)
    assert len(experiment.plan.rows) == ROWS == 8
    assert experiment.failures == {}
    for row in experiment.plan.rows:
        assert outcome_of(experiment.run_dir(row)) == undisturbed(experiment, row.name), row.name
    done = [Entry(row.label, read_run(tmp_path / row.name / "run"), row.setting) for row in experiment.plan.rows]
    command = [sys.executable, "-m", "experiments", "table", str(out), "--format", "csv"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.splitlines() == render(table_of(done, baseline="ce"), "csv").splitlines()
    assert table.stdout.count("\n") > len(METHODS) * len(NOISES)


def _kill_the_superlink(start: Start, out: Path) -> None:
    """While a row that this start has begun trains."""

    def superlinks() -> list[int]:
        return [pid for pid in start.left() if "bin/flower-superlink " in command_of(pid) + " " and _is_it(pid)]

    (superlink,) = wait_for(superlinks, PATIENCE)  # rows of the start before may go on until then
    before = _rounds(out)
    wait_for(lambda: _rounds(out) > before, PATIENCE)
    os.kill(superlink, signal.SIGKILL)


def _rounds(out: Path) -> int:
    """That all rows together have trained."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("runs/*/metrics.jsonl"))


def _is_it(pid: int) -> bool:
    """Not the keeper, which has the command of what it keeps among its arguments."""
    return "experiments.keeper" not in command_of(pid)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_grid_that_is_interrupted_says_how_to_go_on(
    grid: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out, endless = tmp_path / "experiment", tmp_path / "endless.toml"
    values = tomllib.loads(grid.read_text(encoding="utf-8"))
    endless.write_text(tomli_w.dumps({**values, "base": {**values["base"], "num-server-rounds": 100_000}}))
    start = Start(endless, out, "--jobs", "1")
    (log,) = wait_for(
        lambda: [path for path in out.glob("logs/*.log") if "If this run is cut" in path.read_text()], PATIENCE
    )
    said = start.end(number)
    assert start.process.returncode == status, said
    assert "start the same command again" in said
    assert "Traceback" not in said
    assert "Interrupted; finished rounds are kept." in log.read_text(encoding="utf-8")
    assert not start.left()
    assert load(out).failures == {}
