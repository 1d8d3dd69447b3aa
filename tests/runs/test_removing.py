"""`python -m runs remove`: what was named goes, as a whole; whatever happens, nothing else does."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.errors import RunsError
from runs.removing import age, delete
from server_app import run_lock
from server_app.run_lock import RunLock
from tests.forks import ROOT
from tests.runs.folders import Said, made_long_ago, write_run

UNFINISHED: dict[str, Any] = {"num-server-rounds": 9}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the user will answer, one after another."""
    left: list[bool] = []
    monkeypatch.setattr("typer.confirm", lambda question: left.pop(0))
    return left


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with the bytes of its files; links as what they are."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def test_it_asks_and_says_what_goes(home: Path, runs: Callable[..., Said], answers: list[bool]) -> None:
    parent = home / "clothing1m-fl-runs"
    for name in ("a", "b", "c"):
        write_run(parent / name, config=UNFINISHED if name == "b" else None, large=400_000)
    answers += [False, True]
    refused = runs("remove", "a", parent / "b")
    assert refused.code == 0
    assert refused.out.endswith("Nothing was removed.\n")
    assert sorted(path.name for path in parent.iterdir()) == ["a", "b", "c"]
    done = runs("remove", "a", parent / "b", parent / "a")
    rows = done.out.splitlines()
    assert rows[0].split() == ["name", "started", "status", "rounds", "size"]
    assert [row.split()[:4] for row in rows[1:3]] == [["a", "-", "finished", "2/2"], ["b", "-", "interrupted", "2/9"]]
    assert re.fullmatch(r"2 runs, 2\.[345] MiB in all", rows[3])
    assert rows[4:] == ["Cannot be resumed then: b.", "Removed 2 of 2."]
    assert [path.name for path in parent.iterdir()] == ["c"]


def test_without_an_answer_nothing_goes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    command = [sys.executable, "-m", "runs", "remove", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("nothing was removed, since nobody answered; --yes does without the question.")
    assert folder.is_dir()


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path: Path, runs: Callable[..., Said]) -> None:
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "precious").write_bytes(b"1")
    (outside / "linked twice").write_bytes(b"2")
    folder = write_run(tmp_path / "run")
    (folder / "link").symlink_to(outside)
    (folder / "checkpoints" / "link").symlink_to(outside / "folder" / "precious")
    (folder / "hard").hardlink_to(outside / "linked twice")
    shutil.rmtree(folder / "state")
    (folder / "state").symlink_to(outside / "folder")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(outside / "linked twice")
    before = _tree(outside)
    assert runs("remove", folder, "--keep-results", "--yes").code == 0
    assert not (folder / "state").is_symlink()
    assert not (folder / "model.safetensors").is_symlink()
    assert runs("remove", folder, "--yes").code == 0
    assert not folder.exists()
    assert _tree(outside) == before


def test_a_run_that_is_a_link_is_refused(tmp_path: Path, runs: Callable[..., Said]) -> None:
    folder = write_run(tmp_path / "disk" / "run")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(folder)
    said = runs("remove", tmp_path / "runs" / "link", "--yes")
    assert said.code == 1
    assert f"a link to {folder}; name that folder itself." in said.err
    made_long_ago(folder, 90)
    assert runs("remove", "--older-than", "30d", tmp_path / "runs", "--yes").out == "No run is that old.\n"
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["empty", "site", "torch", "file", "experiment", ".."])
def test_what_is_no_run_stays(name: str, tmp_path: Path, runs: Callable[..., Said], answers: list[bool]) -> None:
    for made in ("empty", "site", "torch/checkpoints", "experiment/runs"):
        (tmp_path / made).mkdir(parents=True)
    (tmp_path / "site" / "config.toml").write_text('title = "mine"\n')
    (tmp_path / "torch" / "checkpoints" / "epoch-1.pt").touch()
    (tmp_path / "experiment" / "experiment.json").touch()
    (tmp_path / "file").touch()
    before = _tree(tmp_path)
    said = runs("remove", tmp_path / name, "--yes")
    assert (said.code, said.out) == (1, "")
    assert said.err.count("\n") == 1
    assert _tree(tmp_path) == before


def test_a_run_in_use_stays_also_if_it_was_resumed_after_the_question(
    tmp_path: Path, runs: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    before = _tree(first)
    with RunLock() as lock:
        lock.take(first)
        said = runs("remove", first, second, "--yes")
        assert (said.code, said.out) == (1, "")
        assert "is in use by a run that is running" in said.err
        made_long_ago(first, 90)
        assert runs("remove", "--older-than", "1d", "--unfinished", tmp_path, "--yes").out == "No run is that old.\n"
    with RunLock() as lock:

        def resumed(question: str) -> bool:
            lock.take(first)
            return True

        monkeypatch.setattr("typer.confirm", resumed)
        said = runs("remove", first, second)
        assert said.code == 1
        assert f"a stays: {first} is in use by process {os.getpid()}" in said.err
        assert said.out.endswith("Removed 1 of 2.\n")
    assert _tree(first) == before
    assert not second.exists()


def test_keep_results_removes_what_is_large_and_the_rest_can_be_read(tmp_path: Path, runs: Callable[..., Said]) -> None:
    folder = write_run(tmp_path / "run")
    before = _tree(folder)
    said = runs("remove", folder, "--keep-results", "--yes")
    assert said.code == 0
    large = ("checkpoints", "state", "model.safetensors")
    assert _tree(folder) == {name: data for name, data in before.items() if not name.startswith(large)}
    assert runs("show", folder, "--json").json["status"] == "finished"
    assert runs("remove", folder, "--keep-results", "--yes").out == "There is nothing left to remove.\n"


def test_old_runs(tmp_path: Path, runs: Callable[..., Said]) -> None:
    for name, days, config in (("young", 29.9, {}), ("old", 30.1, {}), ("unfinished", 90, UNFINISHED)):
        made_long_ago(write_run(tmp_path / name, config=config), days)
    os.utime(tmp_path / "old" / ".lock")  # as looking at it may do
    assert "1 run," in runs("remove", "--older-than", "30d", tmp_path, "--yes").out
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["unfinished", "young"]
    assert runs("remove", "--older-than", "8w", tmp_path, "--yes").out == "No run is that old.\n"
    assert (
        "Cannot be resumed then: unfinished."
        in runs("remove", "--older-than", "8w", "--unfinished", tmp_path, "--yes").out
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["young"]


def test_old_runs_of_the_default_folder_and_of_an_experiment(
    home: Path, tmp_path: Path, runs: Callable[..., Said]
) -> None:
    assert runs("remove", "--older-than", "1h", "--yes").out == "No run is that old.\n"
    made_long_ago(write_run(home / "clothing1m-fl-runs" / "run"), 1)
    made_long_ago(write_run(tmp_path / "grid" / "runs" / "row"), 1)
    (tmp_path / "grid" / "experiment.json").touch()
    assert "Removed 1 of 1." in runs("remove", "--older-than", "1h", "--yes").out
    assert "Removed 1 of 1." in runs("remove", "--older-than", "1h", tmp_path / "grid", "--yes").out
    assert (tmp_path / "grid" / "experiment.json").exists()


def test_ages() -> None:
    assert [age(text) for text in ("12h", "30d", " 8 w ", "0d")] == [
        timedelta(hours=12), timedelta(days=30), timedelta(weeks=8), timedelta(0),
    ]  # fmt: skip
    assert age("999999w") == timedelta(days=36500)
    for text in ("", "30", "d", "-1d", "1.5d", "1m", "1y", "9999999d", "٣d d", "30d\n30d"):
        with pytest.raises(RunsError, match="it must be hours, days or weeks, such as 12h, 30d or 8w"):
            age(text)


@given(st.text(max_size=8))
def test_any_text_is_an_age_or_a_sentence(text: str) -> None:
    with contextlib.suppress(RunsError):
        assert age(text) >= timedelta(0)


def test_nothing_named_is_one_sentence(runs: Callable[..., Said], tmp_path: Path) -> None:
    assert "name runs, or say --older-than" in runs("remove").err
    assert "the one folder whose runs" in runs("remove", "--older-than", "1d", tmp_path, tmp_path).err


def test_what_cannot_be_deleted_is_said_and_the_others_go(
    tmp_path: Path, runs: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self == first:
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    said = runs("remove", first, second, "--yes")
    assert said.code == 1
    assert said.err == f"python -m runs: {first} cannot be removed (Permission denied).\n"
    assert first.is_dir()
    assert not second.exists()


def test_what_another_process_deletes_is_no_error(tmp_path: Path) -> None:
    delete(tmp_path / "gone")
    (tmp_path / ("é" * 127)).mkdir()  # as long as a name can be
    delete(tmp_path / ("é" * 127))
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
