"""What every kind of dataset has in common: one writer, for folders and packs, which resumes and leaves out little."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import typer.testing
from PIL import Image

from data.__main__ import app
from data.errors import DataError, StoppedByUserError
from data.images.loading import load_images
from data.release import open_release
from data.sources import writing
from data.sources.source import Listed, Source, files_below, numbered_keys
from data.sources.writing import LEFT_OUT, ORIGINALS, write_source

NAMES = ("cats", "dogs")
TRAIN, TEST = 12, 4
NONE = np.full(TEST, -1)


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (10 * number, 0, 200)).save(out, "PNG")
    return out.getvalue()


def source_of(folder: Path, number: int = TRAIN, own: bool = False, side: int = 0) -> Source:
    """A published dataset of PNGs, whose numbers are their red."""
    origins = [f"train/{row}.png" for row in range(number)], [f"test/{row}.png" for row in range(TEST)]
    for place, origin in enumerate(origins[0] + origins[1]):
        (folder / origin).parent.mkdir(parents=True, exist_ok=True)
        (folder / origin).write_bytes(png(place % 25))
    true = np.arange(number) % 2
    keys = numbered_keys("made", origins[0]), numbered_keys("made", origins[1], number)
    splits = {
        "clean_test": Listed(origins[1], keys[1], np.arange(TEST) % 2, NONE),
        "noisy_train": Listed(origins[0], keys[0], true, (true + (np.arange(number) < 3)) % 2),
    }
    return Source(folder, NAMES, splits, files_below(folder), own=own, side=side)


def content(path: Path) -> dict[str, list[tuple[bytes, int, int, int]]]:
    """By list: key, label, true label, red of each image."""
    release = open_release(path)
    found = {}
    for name in ("noisy_train", "clean_test"):
        split = release.split(name)
        reds = load_images(release, split.keys, 16)[:, 8, 8, 0].tolist()
        found[name] = list(zip(split.keys.tolist(), split.labels.tolist(), split.true.tolist(), reds, strict=True))
    return found


def test_a_folder_and_a_pack_hold_the_same_in_the_same_order(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in")
    for name in ("folder", "a.pack"):
        done = write_source(source, tmp_path / name)
        assert done.counts == {"noisy_train": TRAIN, "clean_test": TEST}
        assert (done.left_out, done.suspect) == ([], {})
    assert content(tmp_path / "folder") == content(tmp_path / "a.pack")
    by_key = {}
    for name, first in (("noisy_train", 0), ("clean_test", TRAIN)):
        listed = source.splits[name]
        labels = listed.noisy if name == "noisy_train" else listed.true
        for row, key in enumerate(listed.keys):
            by_key[key.encode()] = int(labels[row]), int(listed.true[row]), 10 * (first + row)
    seen = [one for rows in content(tmp_path / "folder").values() for one in rows]
    assert {key: (label, true, red) for key, label, true, red in seen} == by_key
    files = {path.read_bytes() for path in (tmp_path / "folder" / "images").rglob("*.jpg")}
    assert files == {png(number) for number in range(TRAIN + TEST)}  # byte for byte
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pack", "a.pack.originals.tsv", "folder", "in"]


def test_pixels_become_a_pack_of_pixels(tmp_path: Path) -> None:
    write_source(source_of(tmp_path / "in", side=16), tmp_path / "a.pack")
    assert open_release(tmp_path / "a.pack").store.decoded_size == 16  # type: ignore[attr-defined]
    write_source(source_of(tmp_path / "in"), tmp_path / "files.pack")
    assert content(tmp_path / "a.pack") == content(tmp_path / "files.pack")


def test_where_each_image_was_is_written_down(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in")
    write_source(source, tmp_path / "folder")
    write_source(source, tmp_path / "a.pack")
    table = (tmp_path / "folder" / ORIGINALS).read_text(encoding="utf-8")
    assert table == (tmp_path / f"a.pack.{ORIGINALS}").read_text(encoding="utf-8")
    rows = dict(line.split("\t") for line in table.splitlines())
    assert rows[source.splits["noisy_train"].keys[7]] == "train/7.png"
    assert len(rows) == TRAIN + TEST
    assert list(rows) == sorted(rows)


def test_keys_are_the_same_everywhere_and_of_one_dataset() -> None:
    keys = numbered_keys("made", ["a", "b"], first=1234)
    assert keys == numbered_keys("made", ["a", "b"], first=1234)
    assert [re.fullmatch(r"images/2/34/\d+,1234\.jpg", keys[0]), keys[1].endswith(",1235.jpg")].count(None) == 0
    assert not set(keys) & set(numbered_keys("other", ["a", "b"], first=1234))


@pytest.mark.parametrize("name", ["folder", "a.pack"])
def test_a_few_broken_images_are_left_out_and_named(tmp_path: Path, name: str) -> None:
    source = source_of(tmp_path / "in")
    (tmp_path / "in" / "train" / "3.png").write_bytes(b"no image")
    (tmp_path / "in" / "test" / "1.png").unlink()
    done = write_source(source, tmp_path / name)
    assert done.counts == {"noisy_train": TRAIN - 1, "clean_test": TEST - 1}
    assert sorted(path.name for path, _ in done.left_out) == ["1.png", "3.png"]
    named = tmp_path / name / LEFT_OUT if name == "folder" else tmp_path / f"{name}.{LEFT_OUT}"
    text = named.read_text(encoding="utf-8")
    assert re.search(r"1\.png cannot be read: No such file or directory\.\t.*1\.png$", text, re.MULTILINE)
    assert re.search(r"3\.png cannot be read as an image \(.*\)\.\t.*3\.png$", text, re.MULTILINE)
    seen = content(tmp_path / name)
    assert 30 not in [red for *_, red in seen["noisy_train"]]
    assert len(seen["clean_test"]) == TEST - 1


@pytest.mark.parametrize("name", ["folder", "a.pack"])
@pytest.mark.parametrize(("number", "broken"), [(TRAIN, 11), (1300, 14)])
def test_many_broken_images_are_half_a_download(tmp_path: Path, name: str, number: int, broken: int) -> None:
    """Up to ten, or one in a hundred, are left out."""
    source = source_of(tmp_path / "in", number)
    for row in range(broken):
        (tmp_path / "in" / "train" / f"{row}.png").unlink()
    with pytest.raises(
        DataError, match=rf"^{broken} files cannot be imported, all named in .*\.broken\.txt; the first"
    ):
        write_source(source, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.broken.txt", "in"]
    (tmp_path / "in" / "train" / "0.png").write_bytes(png(0))
    done = write_source(source, tmp_path / name)
    assert done.counts["noisy_train"] == number - broken + 1


def test_one_broken_photo_of_peoples_own_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in", own=True)
    (tmp_path / "in" / "train" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3\.png cannot be read as an image"):
        write_source(source, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def stopping_after(most: int) -> Callable[[str, int], object]:
    """Ctrl-C after so many images, as a progress bar tells of it."""

    @contextmanager
    def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done >= most:
                raise StoppedByUserError("stopped")

        yield advance

    return bar


@pytest.mark.parametrize("name", ["folder", "a.pack"])
def test_an_import_that_was_stopped_resumes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 2)
    monkeypatch.setattr("data.pack_writer.CHUNK", 2)
    monkeypatch.setattr("data.pack_writer.SYNC_BYTES", 1)
    source = source_of(tmp_path / "in", side=0 if name == "folder" else 16)
    write_source(source, tmp_path / f"other {name}")
    with pytest.raises(StoppedByUserError):
        write_source(source, tmp_path / name, stopping_after(6))
    assert not (tmp_path / name).exists()
    read: list[str] = []

    def encoded(origin: str) -> bytes:
        read.append(origin)
        return files_below(tmp_path / "in")(origin)

    again = Source(source.root, source.class_names, source.splits, encoded, side=source.side)
    done = write_source(again, tmp_path / name)
    assert done.counts == {"noisy_train": TRAIN, "clean_test": TEST}
    assert 0 < len(read) <= TRAIN + TEST - 4
    assert content(tmp_path / name) == content(tmp_path / f"other {name}")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or "partial" in path.name]


def test_an_import_of_something_else_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 2)
    with pytest.raises(StoppedByUserError):
        write_source(source_of(tmp_path / "in"), tmp_path / "out", stopping_after(6))
    other = source_of(tmp_path / "other", number=3)
    write_source(other, tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").rglob("*.jpg"))) == 3 + TEST


def test_two_imports_do_not_write_the_same_folder(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in")

    @contextmanager
    def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
        with pytest.raises(DataError, match="is being written by another process; wait for it"):
            write_source(source, tmp_path / "out")
        yield lambda _: None

    assert write_source(source, tmp_path / "out", bar).counts["noisy_train"] == TRAIN


def test_refusals(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(DataError, match="full exists already"):
        write_source(source, tmp_path / "full")
    with pytest.raises(DataError, match=r"--out is .*new, which is inside .*in; it must be elsewhere"):
        write_source(source, tmp_path / "in" / "new")
    with pytest.raises(DataError, match=r"wrong name of a class, number 2: 'a'"):
        write_source(Source(source.root, ("a", "a"), source.splits, source.encoded), tmp_path / "out")


def test_a_folder_without_a_kind_is_photos_of_ones_own_as_before(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(png(number))

    def said(*words: str) -> tuple[object, str]:
        done = typer.testing.CliRunner().invoke(app, ["import", *words])
        return done.exception, done.output

    for place, line in enumerate((["folder"], [], ["--seed", "1"])):
        problem, text = said(*line, str(tmp_path / "photos"), "--out", str(tmp_path / f"out {place}"))
        assert problem is None, text
        assert "2 noisy_train, 2 clean_train, 2 clean_val, 2 clean_test images." in text
    assert (tmp_path / "out 0" / ORIGINALS).read_bytes() == (tmp_path / "out 1" / ORIGINALS).read_bytes()
    problem, _ = said("cifar1O", "x", "--out", str(tmp_path / "other"))
    assert str(problem).startswith("'cifar1O' is no kind of dataset; it must be one of folder")
