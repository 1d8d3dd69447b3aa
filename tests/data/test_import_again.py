"""Imports that are repeated: after a stop, when all is done, and when something else is in their place."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError, StoppedByUserError
from data.sources import writing
from data.sources.looked import remembered
from data.sources.source import Source, files_below
from data.sources.writing import write_source
from tests.data.test_import_writing import TEST, TRAIN, content, png, source_of, stopping_after

ALL = TRAIN + TEST


def counted(source: Source) -> tuple[Source, list[str]]:
    """The same dataset, and what is read of it from now on."""
    read: list[str] = []

    def encoded(origin: str) -> bytes:
        read.append(origin)
        return files_below(source.root)(origin)

    return replace(source, encoded=encoded), read


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_look_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken images alone are looked at again, and are named as if there had been no stop."""
    monkeypatch.setattr(writing, "CHUNK", 2)
    source, read = counted(source_of(tmp_path / "in"))
    (tmp_path / "in" / source.splits["noisy_train"].origins[0]).write_bytes(b"no image")
    with pytest.raises(StoppedByUserError):
        write_source(source, tmp_path / "a.pack", stopping_after(6))
    assert names(tmp_path) == ["a.pack.looked", "in"]
    looked = set(read)
    read.clear()
    done = write_source(source, tmp_path / "a.pack")
    assert done.counts == {"noisy_train": TRAIN - 1, "clean_test": TEST}
    assert len(done.left_out) == 1
    again = [origin for origin in read if origin in looked]
    assert len(again) <= 6  # all but the broken one are read once, to be packed
    assert sorted({*read}) == sorted({*source.splits["noisy_train"].origins, *source.splits["clean_test"].origins})
    assert len(read) == ALL - 5 + ALL - 1
    assert names(tmp_path) == ["a.pack", "a.pack.left-out.txt", "a.pack.originals.tsv", "in"]


def test_a_stop_between_the_look_and_the_end_of_the_pack(tmp_path: Path) -> None:
    source, read = counted(source_of(tmp_path / "in"))
    with pytest.raises(StoppedByUserError):
        write_source(source, tmp_path / "a.pack", stopping_after(ALL))  # as the last image was looked at
    read.clear()
    write_source(source, tmp_path / "a.pack")
    assert len(read) == ALL
    write_source(source, tmp_path / "other.pack")
    assert (tmp_path / "a.pack").read_bytes() == (tmp_path / "other.pack").read_bytes()


def test_what_is_known_of_another_dataset_does_not_count(tmp_path: Path) -> None:
    path, out = tmp_path / "a.looked", tmp_path / "a"
    for identity, before, found in (("00" * 32, [], [3, 70_000]), ("00" * 32, [3, 70_000], [5]), ("11" * 32, [], [])):
        with pytest.raises(KeyError), remembered(path, identity, out) as sound:
            assert sorted(sound.rows) == before
            sound.add(found)
            raise KeyError
    with pytest.raises(KeyError), remembered(path, "11" * 32, out) as sound:
        sound.add([8, 9])
        raise KeyError
    for size, rows in ((39, [8]), (35, [])):  # a kill in the middle of a number
        os.truncate(path, size)
        with pytest.raises(KeyError), remembered(path, "11" * 32, out) as sound:
            assert sorted(sound.rows) == rows
            with pytest.raises(DataError, match="a is being written by another process"), remembered(path, "22", out):
                pass
            raise KeyError
    with remembered(path, "11" * 32, out):
        pass
    assert not path.exists()


def test_a_pack_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    source, read = counted(source_of(tmp_path / "in"))
    assert write_source(source, tmp_path / "a.pack").fresh
    before = content(tmp_path / "a.pack")
    (tmp_path / "a.pack.originals.tsv").unlink()
    read.clear()
    assert not write_source(source, tmp_path / "a.pack").fresh
    assert read == []
    assert content(tmp_path / "a.pack") == before
    assert names(tmp_path) == ["a.pack", "a.pack.originals.tsv", "in"]


@pytest.mark.parametrize("kind", ["no pack", "other images"])
def test_another_file_is_refused_before_images_are_looked_at(tmp_path: Path, kind: str) -> None:
    source, read = counted(source_of(tmp_path / "in"))
    if kind == "no pack":
        (tmp_path / "a.pack").write_bytes(b"mine")
    else:
        write_source(source_of(tmp_path / "other", TRAIN + 2), tmp_path / "a.pack")
    before = (tmp_path / "a.pack").read_bytes()
    with pytest.raises(DataError, match=r"a\.pack exists already and is not this pack; give another --out"):
        write_source(source, tmp_path / "a.pack")
    assert read == []
    assert (tmp_path / "a.pack").read_bytes() == before


def test_names_of_images_left_out_before_do_not_stay(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in")
    (tmp_path / "in" / "train" / "3.png").unlink()
    write_source(source, tmp_path / "a.pack")
    assert (tmp_path / "a.pack.left-out.txt").exists()
    (tmp_path / "in" / "train" / "3.png").write_bytes(png(3))
    (tmp_path / "a.pack").unlink()
    write_source(source, tmp_path / "a.pack")
    assert names(tmp_path) == ["a.pack", "a.pack.originals.tsv", "in"]


@pytest.mark.parametrize("name", ["folder", "a.pack"])
def test_pipes_devices_and_huge_files_are_not_read(tmp_path: Path, name: str) -> None:
    source = source_of(tmp_path / "in")
    paths = [tmp_path / "in" / "train" / f"{row}.png" for row in range(4)]
    for path in paths:
        path.unlink()
    os.mkfifo(paths[0])
    paths[1].symlink_to("/dev/zero")
    paths[2].mkdir()
    paths[3].touch()
    os.truncate(paths[3], (1 << 30) + 1)
    done = write_source(source, tmp_path / name)
    assert done.counts["noisy_train"] == TRAIN - 4
    left_out = tmp_path / name / "left-out.txt" if name == "folder" else tmp_path / f"{name}.left-out.txt"
    said = dict(line.split("\t")[::-1] for line in left_out.read_text(encoding="utf-8").splitlines())
    for path in paths[:3]:
        assert said[str(path)] == f"{path} cannot be read: it is not a file."
    assert said[str(paths[3])] == f"{paths[3]} cannot be read: it is longer than 1,073,741,824 bytes."


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """Imports four photos each of cats and dogs with one's home and current folder in `tmp_path`."""
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(png(number))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def run(source: str, *words: str) -> tuple[str, str]:
        done = CliRunner().invoke(app, ["import", "folder", source, *words])
        return str(done.exception or ""), done.output

    return run


@pytest.mark.parametrize("name", ["release", "a.pack"])
def test_a_home_that_the_shell_leaves_alone(tmp_path: Path, run: Callable[..., tuple[str, str]], name: str) -> None:
    assert run("photos", f"--out=~/{name}")[0] == ""
    assert (tmp_path / "home" / name).exists()
    assert names(tmp_path) == ["home", "photos"]


def test_a_full_folder_is_refused_before_the_dataset_is_read(
    tmp_path: Path, run: Callable[..., tuple[str, str]]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    assert "full exists already; it must be a folder that does not exist yet" in run("no such folder", "--out=full")[0]


def test_a_repeated_command_says_that_the_pack_is_there(run: Callable[..., tuple[str, str]]) -> None:
    first, second = run("photos", "--out=a.pack"), run("photos", "--out=a.pack")
    assert first[0] == second[0] == ""
    assert first[1].replace("images.", "images; it already existed.") == second[1]


def test_rows_are_four_bytes(tmp_path: Path) -> None:
    with pytest.raises(KeyError), remembered(tmp_path / "x", "ab" * 32, tmp_path / "out") as sound:
        sound.add([1, 258])
        raise KeyError
    assert (tmp_path / "x").read_bytes() == b"\xab" * 32 + np.array([1, 258], "<u4").tobytes()
