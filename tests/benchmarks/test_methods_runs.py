"""The methods' benchmark with its runs in processes of their own: which rows come, what fails, and what is left."""

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.methods import alone, runs
from benchmarks.methods.rows import read
from benchmarks.methods.settings import GARMENTS, SETTINGS, Setting, mark_of
from config.run_config import Value

TINY: dict[str, Value] = {
    **GARMENTS, "model": "cnn", "image-size": 16, "batch-size": 8, "local-epochs": 1, "num-server-rounds": 2,
}  # fmt: skip
COUNTING = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
started = time.time()
time.sleep(0.3)
(folder / "model.safetensors").touch()
(folder / "metrics.jsonl").write_text(json.dumps({"test-accuracy": 0.5, "started": started, "ended": time.time()}))
"""


@pytest.fixture
def results(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to, with runs that train a tiny network on a tiny sample."""
    setting = Setting("", "", "sample", 4, TINY, {}, 0.4, "clothing1m")
    monkeypatch.setitem(SETTINGS, "iid", setting)
    monkeypatch.setattr(runs, "release_of", lambda name, folder: tiny_sample)
    return tmp_path / "deep" / "rows.jsonl"


def _children_run(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(runs, "command_of", lambda planned: [sys.executable, "-c", code, str(planned.folder)])


def test_a_run_in_a_process_of_its_own_gives_a_row(results: Path) -> None:
    assert runs.in_processes(results, [("iid", "gce", 3)], at_once=2) == []
    (row,) = read(results)[0]
    assert row.key == ("iid", "gce", 3, mark_of("iid", "gce"))
    assert len(row.accuracy) == 2
    assert all(0 <= accuracy <= 100 for accuracy in row.accuracy)
    (folder,) = (results.parent / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"metrics.jsonl", "config.toml"}
    assert not {"checkpoints", "state", "model.safetensors"} & {path.name for path in folder.iterdir()}


def test_nothing_starts_if_nothing_is_missing(results: Path) -> None:
    assert runs.in_processes(results, [], at_once=2) == []


def test_as_many_run_side_by_side_as_was_asked_for(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _children_run(monkeypatch, COUNTING)
    assert runs.in_processes(results, [("iid", "ce", seed) for seed in range(5)], at_once=2) == []
    assert sorted(row.seed for row in read(results)[0]) == [0, 1, 2, 3, 4]
    lines = [json.loads(path.read_text()) for path in results.parent.glob("runs/*/metrics.jsonl")]
    at_once = [sum(one["started"] <= other["started"] < one["ended"] for one in lines) for other in lines]
    assert max(at_once) <= 2


def test_a_run_that_fails_leaves_its_log_and_stops_no_other(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _children_run(monkeypatch, f"import sys\nif '-ce-2-' in sys.argv[1]:\n    sys.exit('no such thing')\n{COUNTING}")
    (failure,) = runs.in_processes(results, [("iid", "ce", seed) for seed in (1, 2, 3)], at_once=1)
    assert failure.startswith("2 of 3: iid, ce, seed 2: exit status 1")
    assert failure.endswith("no such thing")
    assert [row.seed for row in read(results)[0]] == [1, 3]
    assert [path.name.split("-")[2] for path in (results.parent / "runs").glob("*.log")] == ["2"]


def test_an_interruption_keeps_finished_rows_and_ends_the_other_runs(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _children_run(monkeypatch, f"import os, sys, time\nif '-ce-2-' in sys.argv[1]:\n    time.sleep(600)\n{COUNTING}")
    processes = []
    begin, keep = runs._Process.__init__, runs.keep

    def remember(process: runs._Process, planned: runs.Planned) -> None:
        begin(process, planned)
        processes.append(process)

    def keep_and_interrupt(path: Path, planned: runs.Planned, seconds: float) -> None:
        keep(path, planned, seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs._Process, "__init__", remember)
    monkeypatch.setattr(runs, "keep", keep_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        runs.in_processes(results, [("iid", "ce", seed) for seed in (1, 2, 3)], at_once=2)
    assert [row.seed for row in read(results)[0]] == [1]
    assert len(processes) == 2
    assert all(process.ended for process in processes)


def test_a_run_ends_with_the_command_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    given = [b"x", b""]
    monkeypatch.setattr(os, "read", lambda descriptor, size: given.pop(0))
    monkeypatch.setattr(os, "_exit", ends.append)
    alone.end_with_parent()
    assert (given, ends) == ([], [1])
