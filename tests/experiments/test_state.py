"""How far rows are, what a changed grid makes of a folder, and how long the rest takes."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data.sample import draw_sample
from experiments.checks import plan_of
from experiments.errors import ExperimentError
from experiments.estimate import in_words, seconds_left
from experiments.folder import last_start, next_start, no_longer_there, write_down
from experiments.plan import Experiment, Plan, Row, save
from experiments.state import state_of
from server_app.run_lock import RunLock
from tests.experiments.folders import GRID, leave, write_grid
from tests.fakes import run_in_process
from tests.odd_values import is_a_sentence


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "out", plan_of(write_grid(tmp_path), tmp_path / "out"))


def again(experiment: Experiment, plan: Plan, force: bool = False) -> Experiment:
    """What the next start makes of a folder."""
    save(experiment)
    return next_start(experiment.folder, plan, last_start(experiment.folder), force)


def with_other_marks(plan: Plan, rows: int, code: str) -> Plan:
    """A plan whose first rows have changed."""
    changed = [
        replace(row, mark=f"{number:08}", name=f"x-{number:08}") if number < rows else row
        for number, row in enumerate(plan.rows)
    ]
    return replace(plan, rows=tuple(changed), code=code)


def test_the_state_is_what_the_folder_says(experiment: Experiment) -> None:
    done, stopped, killed, empty, broken, running, failed, missing = experiment.plan.rows
    leave(experiment, done, 3)
    leave(experiment, stopped, 2, how="stopped")
    leave(experiment, killed, 2, how="")
    experiment.run_dir(empty).mkdir()
    leave(experiment, broken, 3)
    (experiment.run_dir(broken) / "run.json").write_text("{")
    (experiment.run_dir(broken) / "config.toml").write_text("=")
    leave(experiment, running, 3)
    experiment.failures = dict.fromkeys([failed.name, done.name], "out of memory")
    with RunLock() as lock:
        lock.take(experiment.run_dir(running))
        states = [state_of(experiment, row) for row in experiment.plan.rows]
    assert states == ["done", *["unfinished"] * 5, "failed", "missing"]
    assert state_of(experiment, running) == "done"
    experiment.failures = {stopped.name: "its server stopped"}
    assert state_of(experiment, stopped) == "failed"
    assert state_of(experiment, missing) == "missing"


def test_a_real_run_is_done(tmp_path: Path) -> None:
    draw_sample(tmp_path / "data", train=16, clean_train=2, val=2, test=2, image_size=16, seed=1)
    base = {**GRID["base"], "data-dir": str(tmp_path / "data"), "batch-size": 2}
    experiment = Experiment(tmp_path / "out", plan_of(write_grid(tmp_path, base=base), tmp_path / "out"))
    row, other, *_ = experiment.plan.rows
    config: dict[str, Any] = {**row.config, "run-name": row.name}
    run_in_process(experiment.folder / "runs", 4, **config)
    assert [state_of(experiment, one) for one in (row, other)] == ["done", "missing"]
    assert seconds_left(experiment, [other], 1) is not None


def test_a_run_that_a_rule_ended_is_done(experiment: Experiment) -> None:
    leave(experiment, experiment.plan.rows[0], 1)
    assert state_of(experiment, experiment.plan.rows[0]) == "done"


def test_a_run_of_an_earlier_version_is_done_after_all_rounds(experiment: Experiment) -> None:
    for row, rounds in zip(experiment.plan.rows, (3, 2), strict=False):
        (leave(experiment, row, rounds) / "run.json").unlink()
    assert [state_of(experiment, row) for row in experiment.plan.rows[:2]] == ["done", "unfinished"]


def test_a_grown_grid_keeps_what_is_there(experiment: Experiment, tmp_path: Path) -> None:
    for row in experiment.plan.rows:
        leave(experiment, row, 3)
    experiment.failures = {"gone": "a", experiment.plan.rows[0].name: "b"}
    axes = {**GRID["axes"], "method": ["elr", "gce", "ce"]}
    grown = again(experiment, plan_of(write_grid(tmp_path, axes=axes, seeds=[2, 3, 1]), tmp_path / "out"))
    assert len(grown.plan.rows) == 18
    assert {row.name for row in grown.plan.rows} > {row.name for row in experiment.plan.rows}
    states = [state_of(grown, row) for row in grown.plan.rows]
    assert (states.count("done"), states.count("missing")) == (8, 10)
    assert grown.failures == {experiment.plan.rows[0].name: "b"}
    assert not no_longer_there(experiment, grown)


def test_rows_that_left_the_grid_are_named(experiment: Experiment, tmp_path: Path) -> None:
    for row in experiment.plan.rows[:6]:
        leave(experiment, row, 3)
    smaller = again(experiment, plan_of(write_grid(tmp_path, seeds=[1]), tmp_path / "out"))
    gone = no_longer_there(experiment, smaller)
    assert gone == list(experiment.plan.rows[4:6])  # the others of seed 2 have no folder
    assert not no_longer_there(smaller, smaller)
    assert not no_longer_there(None, smaller)


def test_a_row_that_is_called_otherwise_keeps_its_folder(experiment: Experiment, tmp_path: Path) -> None:
    leave(experiment, experiment.plan.rows[0], 3)
    axes = {**GRID["axes"], "method": [{"name": "baseline", "method": "ce"}, "elr"]}
    renamed = again(experiment, plan_of(write_grid(tmp_path, axes=axes, baseline="baseline"), tmp_path / "out"))
    first, second = renamed.plan.rows[:2]
    assert (first.label, first.name) == ("baseline", experiment.plan.rows[0].name)
    assert second.name.startswith("baseline-pairflip-s1-")
    assert [state_of(renamed, row) for row in (first, second)] == ["done", "missing"]


@pytest.mark.parametrize(("code", "what"), [("other", "the code"), ("", "their data, or defaults in pyproject.toml,")])
def test_changed_code_or_data_are_refused(experiment: Experiment, code: str, what: str) -> None:
    for row, how in zip(experiment.plan.rows[:2], ("finished", ""), strict=True):
        leave(experiment, row, 2, how=how)
    changed = with_other_marks(experiment.plan, 3, code or experiment.plan.code)  # the third has no folder
    with pytest.raises(ExperimentError) as error:
        again(experiment, changed)
    assert f"{experiment.folder} has 2 rows of this grid from before {what} changed" in str(error.value)
    assert "--again runs them once more" in str(error.value)
    assert is_a_sentence(str(error.value))
    anew = again(experiment, changed, force=True)
    assert anew.plan == changed
    assert [state_of(anew, row) for row in anew.plan.rows[:3]] == ["missing"] * 3
    assert no_longer_there(experiment, anew) == list(experiment.plan.rows[:2])
    assert again(anew, changed).plan == changed  # once said, it is not asked again


def test_another_config_is_another_row(experiment: Experiment, tmp_path: Path) -> None:
    leave(experiment, experiment.plan.rows[0], 3)
    other = plan_of(write_grid(tmp_path, base={**GRID["base"], "num-server-rounds": 4}), tmp_path / "out")
    assert again(experiment, other).plan == other
    more = plan_of(write_grid(tmp_path, federation={**GRID["federation"], "num-supernodes": 5}), tmp_path / "out")
    assert again(experiment, more).plan == more


def test_the_share_of_the_machine_is_not_the_row(experiment: Experiment, tmp_path: Path) -> None:
    leave(experiment, experiment.plan.rows[0], 3)
    federation = {**GRID["federation"], "init-args-num-cpus": 1}
    other = again(experiment, plan_of(write_grid(tmp_path, federation=federation), tmp_path / "out"))
    assert state_of(other, other.plan.rows[0]) == "done"
    assert other.plan.rows[0].federation == federation


def test_a_folder_is_an_experiments_or_empty(experiment: Experiment, tmp_path: Path) -> None:
    folder = experiment.folder
    assert last_start(folder) is None
    folder.mkdir()
    (folder / ".lock").touch()
    assert last_start(folder) is None
    (folder / "notes.txt").touch()
    with pytest.raises(ExperimentError, match=r"which is no experiment's folder and is not empty") as error:
        last_start(folder)
    assert is_a_sentence(str(error.value))
    write_down(experiment, write_grid(tmp_path))
    assert last_start(folder) == experiment
    (folder / "experiment.json").unlink()  # as its sentence says when it is damaged
    assert last_start(folder) is None


def test_the_grid_is_copied(experiment: Experiment, tmp_path: Path) -> None:
    experiment.folder.mkdir()
    grid = write_grid(tmp_path)
    write_down(experiment, grid)
    copy = experiment.folder / "grid.toml"
    assert copy.read_bytes() == grid.read_bytes()
    write_down(experiment, copy)  # which may be the grid itself
    assert copy.read_bytes() == grid.read_bytes()
    assert sorted(path.name for path in experiment.folder.iterdir()) == ["experiment.json", "grid.toml", "logs", "runs"]


def test_the_time_that_is_left(experiment: Experiment) -> None:
    ce, _, elr, *_ = experiment.plan.rows
    rest = list(experiment.plan.rows[1:])
    assert seconds_left(experiment, rest, 1) is None
    leave(experiment, ce, 3, seconds=2)  # and 10 to start
    assert seconds_left(experiment, rest, 1) == 7 * (10 + 3 * 2)
    assert seconds_left(experiment, rest, 2) == 7 * 16 / 2
    assert seconds_left(experiment, rest, 100) == 16
    leave(experiment, elr, 1, seconds=8, how="")
    # Three rows of ce; elr has two rounds of this row and three of the other three; all start.
    assert seconds_left(experiment, rest, 1) == 3 * 16 + (10 + 2 * 8) + 3 * (10 + 3 * 8)
    assert seconds_left(experiment, [], 4) == 0


def test_a_start_begins_with_its_command(experiment: Experiment) -> None:
    leave(experiment, experiment.plan.rows[0], 3, seconds=2)  # begins at 00:00:00 UTC
    log = experiment.log(experiment.plan.rows[0])
    log.parent.mkdir()
    called = datetime(2025, 12, 31, 23, 59, 30, tzinfo=UTC).astimezone()
    log.write_text(f"\n# {called:%Y-%m-%d %H:%M:%S}: flwr run /app own --stream\nUsing SuperLink: own\n")
    assert seconds_left(experiment, experiment.plan.rows[1:2], 1) == 30 + 10 + 3 * 2
    log.write_text("# 2025-13-31 23:59:30: flwr run /app\n")
    assert seconds_left(experiment, experiment.plan.rows[1:2], 1) == 3 * 2


def test_a_label_without_rounds_takes_as_long_as_the_mean_round(experiment: Experiment) -> None:
    leave(experiment, experiment.plan.rows[0], 3, seconds=2)
    leave(experiment, experiment.plan.rows[1], 1, seconds=6, how="stopped")
    elr: list[Row] = [row for row in experiment.plan.rows if row.label == "elr"][:1]
    assert seconds_left(experiment, elr, 1) == 10 + 3 * 3


def test_a_resumed_run_says_nothing_of_starts(experiment: Experiment) -> None:
    folder = leave(experiment, experiment.plan.rows[0], 3, seconds=2)
    (folder / "resumes.jsonl").write_text("{}\n")
    assert seconds_left(experiment, experiment.plan.rows[1:2], 1) == 3 * 2


def test_times_in_words() -> None:
    assert [in_words(seconds) for seconds in (0, 119, 120, 7199, 7200, 172_800)] == [
        "0 s", "119 s", "2 min", "120 min", "2 h", "2 days",
    ]  # fmt: skip
