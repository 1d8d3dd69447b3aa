"""What a folder says of its run: finished, cut short or in use, of an earlier version, damaged, or no run at all."""

import json
import random
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import experiments.plan
from config.run_config import RunConfig
from runs import run as run_module
from runs.errors import RunsError
from runs.run import find_runs, read_run
from server_app.run_lock import RunLock
from tests.fakes import CutOffError, cut_off_in, run_in_process
from tests.forks import ROOT
from tests.runs.folders import names, write_run


def test_a_real_run_is_finished_and_a_killed_one_is_interrupted(tiny_sample: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"data_dir": str(tiny_sample), "model": "cnn", "image_size": 16, "num_server_rounds": 2}
    done = read_run(run_in_process(tmp_path, run_name="done", **small))
    with pytest.raises(CutOffError):
        run_in_process(tmp_path, run_name="killed", handler=cut_off_in(3), **small)
    killed = read_run(tmp_path / "killed")
    assert (done.status, done.done, done.asked, done.problems) == ("finished", 2, 2, ())
    assert (killed.status, killed.done, killed.asked, killed.problems) == ("interrupted", 1, 2, ())
    assert done.config["method"] == "ce"
    assert len(done.code) == 16
    assert names(list(find_runs(tmp_path))) == ["done", "killed"]


@pytest.mark.parametrize(
    ("record", "rounds", "status"),
    [
        (None, 3, "finished"),
        (None, 2, "interrupted"),
        ({"how": "finished"}, 3, "finished"),
        ({"how": "finished", "reason": "patience: 2 rounds without a better one."}, 2, "finished"),
        ({"how": "stopped", "reason": "A disk is full."}, 2, "stopped"),
        ({}, 3, "interrupted"),  # killed before it had written its weights
    ],
)
def test_how_it_ended(record: dict[str, str] | None, rounds: int, status: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [0.1] * rounds, {"num-server-rounds": 3}, record)
    assert read_run(folder).status == status
    assert read_run(folder).reason == (record or {}).get("reason", "")


def test_whoever_holds_the_lock_is_running(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", record={"how": "stopped", "ended": "2026-03-01T11:00:00+00:00"})
    with RunLock() as lock:
        lock.take(folder)
        assert read_run(folder).status == "running"
        assert read_run(folder).ended is None
    assert read_run(folder).status == "stopped"
    assert read_run(folder).ended == datetime(2026, 3, 1, 11, tzinfo=UTC)


def test_rounds_that_are_not_evaluated_are_done_all_the_same(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [None, 0.5, None], {"num-server-rounds": 4, "evaluate-every": 2}))
    assert (run.done, run.status, [*run.accuracies]) == (3, "interrupted", [2])


def test_a_config_of_an_earlier_version_has_defaults_where_it_has_no_key(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", config={"learning-rate": 0.5})
    path = folder / "config.toml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(("payload", "state-dir"))]
    path.write_text("\n".join([*kept, 'forgotten-key = "x"', ""]))
    run = read_run(folder)
    assert run.config == {
        **RunConfig().to_flat(), "learning-rate": 0.5, "num-server-rounds": 2, "strategy": "fedavg", "num-clients": 10,
    }  # fmt: skip
    assert run.problems == ()


def test_numbers_keep_their_type(tmp_path: Path) -> None:
    """TOML that a person wrote has whole numbers where the config has fractions."""
    folder = write_run(tmp_path / "run", config={"fraction-train": 1})
    assert type(read_run(folder).config["fraction-train"]) is float


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff\xfe", b"seed = 1", b"seed = true\n", b"seed = 1\nlearning-rate = inf\n", b"a" * 5000, b"[" * 9000],
)
def test_a_damaged_config_is_a_problem_and_the_rest_is_known(damage: bytes, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.toml").write_bytes(damage)
    run = read_run(folder)
    assert run.config == {}
    assert run.problems[0].startswith("config.toml is damaged")
    assert (run.done, run.asked, run.status) == (2, 0, "interrupted")


def test_every_cut_of_a_config_is_damage_or_a_config(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", config={"method": "elr"})
    whole = (folder / "config.toml").read_bytes()
    for size in random.Random(1).sample(range(len(whole)), 60):
        (folder / "config.toml").write_bytes(whole[:size])
        run = read_run(folder)
        assert bool(run.config) != bool(run.problems)


def test_damaged_lines_are_counted_unless_one_is_being_written(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "test-acc')
    assert read_run(folder).problems == ("metrics.jsonl: 1 damaged lines are left out.",)
    with RunLock() as lock:
        lock.take(folder)
        assert read_run(folder).problems == ()


def test_what_is_no_run(tmp_path: Path) -> None:
    for name in ("empty", "other/checkpoints", "site", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other/checkpoints/epoch-1.pt").touch()
    (tmp_path / "site/config.toml").write_text('title = "a page"\n')
    (tmp_path / "a project/checkpoints").mkdir(parents=True)
    (tmp_path / "a project/.git").mkdir()
    (tmp_path / "my settings").mkdir()
    (tmp_path / "my settings/config.toml").write_text('method = "elr"\nseed = 3\n')  # for `flwr run . -c`
    (tmp_path / "file").touch()
    write_run(tmp_path / ".removed")
    for path in tmp_path.iterdir():
        if path.name != ".removed":
            with pytest.raises(RunsError, match="is no run"):
                read_run(path)
    assert names(list(find_runs(tmp_path))) == []


def test_a_run_that_has_just_begun_is_one(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/.lock").touch()
    run = read_run(tmp_path / "run")
    assert (run.status, run.done, run.started) == ("interrupted", 0, None)
    assert (datetime.now(UTC) - run.changed).days == 0


def test_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    by_record = read_run(write_run(tmp_path / "2026-01-31_12-00-00", record={}))
    by_name = read_run(write_run(tmp_path / "2026-01-31_12-00-01_2"))
    assert by_record.started == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert by_name.started is not None
    assert by_name.started.astimezone().strftime("%Y-%m-%d %H:%M:%S") == "2026-01-31 12:00:01"
    for name in ("my-run", "2026-01-31", "2026-99-99_12-00-00", "0000-00-00_00-00-00"):
        assert read_run(write_run(tmp_path / name)).started is None


def test_an_experiment_holds_its_runs_in_a_folder(tmp_path: Path) -> None:
    assert (run_module.EXPERIMENT, run_module.ROWS) == (experiments.plan.FILE, experiments.plan.RUNS)
    write_run(tmp_path / "runs" / "row")
    assert names(list(find_runs(tmp_path))) == []
    (tmp_path / "experiment.json").write_text("{}")
    assert names(list(find_runs(tmp_path))) == ["row"]


AS_NOBODY = """
import json, os, sys
from pathlib import Path
from runs.run import find_runs
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
found = find_runs(Path(sys.argv[1]))
print(json.dumps([[run.name, run.done, list(run.problems)] for run in found]))
"""


def test_what_may_not_be_read_is_listed_with_what_is_known() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        parent = Path(temporary)
        parent.chmod(0o755)
        for name in ("a", "b", "c"):
            write_run(parent / name)
        unreadable = (parent / "b" / "config.toml", parent / "c" / "metrics.jsonl", parent / "a")
        for path in unreadable:
            path.chmod(0)
        command = [sys.executable, "-c", AS_NOBODY, str(parent)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        for path in unreadable:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["a", 0, ["The folder cannot be read."]],
        ["b", 2, ["config.toml is damaged or cannot be read."]],
        ["c", 0, ["metrics.jsonl cannot be read."]],
    ]
