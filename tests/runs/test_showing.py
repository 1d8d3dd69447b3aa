"""`python -m runs show`: all that a folder says of one run, to people and to scripts."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_app.run_lock import RunLock
from tests.fakes import run_in_process
from tests.runs.folders import Said, write_run

RECORD = {
    "how": "finished", "ended": "2026-03-01T11:30:00+00:00", "reason": "patience: two rounds were no better.",
    "code": ["c0de", "beef"], "versions": {"flwr": "1.42.0"}, "machine": {"cpu": "A chip", "gpu": ""},
    "data": {"clean_test": "7e57"}, "clients": 10, "held": "0123",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of four rounds that validation judges otherwise than test does."""
    folder = write_run(tmp_path / "run", [0.25, 0.75, 0.5, 0.625], {"method": "elr", "num-server-rounds": 40}, RECORD)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for one, validation in zip(lines, (0.1, 0.2, 0.9, 0.3), strict=True):
        one["val-accuracy"] = validation
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    failures = [{"round": 1, "partition": 7, "reason": "x"}, {"round": 2, "partition": 7, "reason": "y"}]
    failures.append({"round": 2, "partition": 3, "reason": "z"})
    (folder / "failures.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in failures) + "{")
    resumed = {
        "round": 2,
        "time": "2026-03-01T10:40:00+00:00",
        "flower-run": "8",
        "changed": {"data-dir": ["/a", "/b"]},
    }
    (folder / "resumes.jsonl").write_text(f'{{"round": 1, "ti\n[]\n{json.dumps(resumed)}\n')
    return folder


def test_scripts_learn_everything(folder: Path, runs: Callable[..., Said]) -> None:
    found = runs("show", folder, "--json").json
    assert (found["status"], found["reason"]) == ("finished", "patience: two rounds were no better.")
    assert (found["rounds"], found["asked"]) == (4, 40)
    assert found["scores"] == {
        "last": 0.625, "last10": 0.53125, "picked": 0.5, "best-on-test": 0.75, "picked-round": 3,
    }  # fmt: skip
    assert found["settings"] == {"method": "elr", "num-server-rounds": 40}
    assert (found["failures"], found["clients"]) == ({"3": 1, "7": 2}, 10)
    assert found["resumes"] == [
        {"round": 2, "time": "2026-03-01T10:40:00+00:00", "changed": {"data-dir": ["/a", "/b"]}}
    ]
    assert {key: found[key] for key in ("code", "versions", "machine", "data", "held", "flower-run")} == {
        "code": ["c0de", "beef"], "versions": {"flwr": "1.42.0"}, "machine": {"cpu": "A chip", "gpu": ""},
        "data": {"clean_test": "7e57"}, "held": "0123", "flower-run": "7",
    }  # fmt: skip
    files = {one["name"]: one["bytes"] for one in found["files"]}
    assert files.keys() == {path.name for path in folder.iterdir()}
    assert files["checkpoints"] >= 10_000
    assert sum(files.values()) <= found["bytes"]
    assert found["resume-command"] == ""


def test_people_learn_which_number_is_which(folder: Path, runs: Callable[..., Said]) -> None:
    text = runs("show", folder).out
    said = " ".join(text.split())
    for words in (
        "accuracy 62.5 % round 4, the last one evaluated", "53.1 % mean of the last 4 rounds",
        "50.0 % round 3, which validation picks",
        "75.0 % the best round, picked on clean test itself, so no estimate of anything",
        "status finished: patience: two rounds were no better.", "rounds 4 of 40", "method = 'elr'",
        "failures client 3: 1, client 7: 2", "code c0de then beef", "changed: data-dir", "data clean_test: 7e57",
        "machine cpu: A chip",
    ):  # fmt: skip
        assert words in said
    assert "gpu" not in text


@pytest.mark.parametrize(
    ("record", "status", "resumable"),
    [({"how": "finished"}, "finished", False), ({"how": "stopped", "reason": "A disk is full."}, "stopped", True),
     ({}, "interrupted", True)],
)  # fmt: skip
def test_whatever_the_status_the_exit_code_is_0(
    record: dict[str, str], status: str, resumable: bool, tmp_path: Path, runs: Callable[..., Said]
) -> None:
    folder = write_run(tmp_path / "a run", record=record)
    found = runs("show", folder, "--json").json
    assert found["status"] == status
    assert bool(found["resume-command"]) == resumable
    said = runs("show", folder).out
    assert ("To resume it:" in said) == resumable
    if resumable:
        words = shlex.split(found["resume-command"])
        assert words == [
            "flwr", "run", ".", "--stream", "--federation-config", "num-supernodes=10 client-resources-num-cpus=1",
            "-c", f"resume='{folder}'",
        ]  # fmt: skip


def test_a_run_without_checkpoints_cannot_be_resumed_and_one_that_runs_need_not(
    tmp_path: Path, runs: Callable[..., Said]
) -> None:
    folder = write_run(tmp_path / "run", record={})
    with RunLock() as lock:
        lock.take(folder)
        running = runs("show", folder, "--json").json
        assert (running["status"], running["resume-command"]) == ("running", "")
    (folder / "checkpoints" / "round-00002.safetensors").unlink()
    assert runs("show", folder, "--json").json["resume-command"] == ""


def test_the_command_that_repeats_a_run_names_its_config(tmp_path: Path, runs: Callable[..., Said]) -> None:
    folder = write_run(tmp_path / "my $run")
    words = shlex.split(runs("show", folder, "--json").json["repeat-command"])
    assert words[-2:] == ["-c", str(folder / "config.toml")]
    assert "num-supernodes=10 client-resources-num-cpus=1" in words
    assert f"-c '{folder}/config.toml'" in runs("show", folder).out


def test_damage_is_shown_and_nothing_ends_in_a_traceback(tmp_path: Path, runs: Callable[..., Said]) -> None:
    folder = write_run(tmp_path / "<b>[red]衣服\n$x$", [0.5])
    (folder / "config.toml").write_text("# Flower's run 1, code c0de,\nseed")
    (folder / "run.json").write_text('{"how": 3}')
    (folder / "failures.jsonl").write_text("\0\0")
    (folder / "resumes.jsonl").mkdir()
    for name in ("metrics.jsonl", "nothing"):
        text = runs("show", folder).out
        assert "config.toml is damaged or cannot be read." in text
        assert "<b>[red]衣服?$x$" in text
        assert runs("show", folder, "--json").json["problems"]
        (folder / name).write_text('{"round": 1, "test-accuracy": 0.5, "val-accuracy": "x", "clients": []}\n')


def test_a_real_run(tiny_sample: Path, tmp_path: Path, runs: Callable[..., Said]) -> None:
    small: dict[str, Any] = {"data_dir": str(tiny_sample), "model": "cnn", "image_size": 16, "num_server_rounds": 2}
    folder = run_in_process(tmp_path, method="elr", **small)
    found = runs("show", folder, "--json").json
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert found["scores"]["last"] == found["accuracy"] == lines[-1]["test-accuracy"]
    assert found["scores"]["best-on-test"] == max(line["test-accuracy"] for line in lines)
    assert (found["status"], found["clients"], found["settings"]["method"]) == ("finished", 4, "elr")
    assert "To repeat it:" in runs("show", folder).out
