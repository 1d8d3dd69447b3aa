"""What a name stands for, and what a folder takes on disk."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runs.errors import RunsError
from runs.places import bytes_on_disk, folder_of_runs, run_dir
from tests.runs.folders import Said, write_run


def test_a_hard_link_counts_once_a_hole_not_at_all_and_a_link_leads_nowhere(tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    for one in (folder, outside):
        one.mkdir()
    empty = bytes_on_disk(folder)
    (folder / "file").write_bytes(os.urandom(100_000))
    alone = bytes_on_disk(folder)
    assert 100_000 <= alone - empty < 200_000
    (folder / "best").hardlink_to(folder / "file")
    assert bytes_on_disk(folder) == alone
    with (folder / "sparse").open("wb") as file:
        file.truncate(10**12)
    assert bytes_on_disk(folder) - alone < 100_000
    (outside / "large").write_bytes(os.urandom(1_000_000))
    (folder / "link").symlink_to(outside)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "loop").symlink_to(folder)
    assert bytes_on_disk(folder) - alone < 100_000
    assert bytes_on_disk(tmp_path / "nowhere") == 0


def test_run_is_a_path_or_a_name_in_the_default_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = write_run(tmp_path / "mine"), write_run(home / "clothing1m-fl-runs" / "yours")
    write_run(home / "clothing1m-fl-runs" / "mine")
    monkeypatch.chdir(tmp_path)
    assert run_dir("mine").resolve() == here  # the nearer one
    assert run_dir(str(here)) == here
    assert run_dir("yours") == there
    assert run_dir("~/clothing1m-fl-runs/yours") == there
    with pytest.raises(RunsError, match=r"must be the folder of a run, or the name .* \(did you mean 'yours'\?\)\.$"):
        run_dir("yourz")


def test_an_experiment_and_a_run_are_told_apart(runs: Callable[..., Said], tmp_path: Path) -> None:
    row = write_run(tmp_path / "runs" / "row")
    (tmp_path / "experiment.json").touch()
    assert "an experiment; its runs are the folders in" in runs("show", tmp_path).err
    assert "is a run, and no folder of runs" in runs("list", row).err
    assert folder_of_runs(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("word", ["", ".", "nowhere", "a\nb", "\x1b[31m", "é" * 300, "~nosuchuser/x", "/dev/null"])
def test_what_is_no_run_is_one_sentence(word: str, runs: Callable[..., Said]) -> None:
    said = runs("show", word)
    assert said.code == 1
    assert said.err.startswith("python -m runs: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
