"""People's own folders for each list: which are read, which classes there are, and what is refused."""

import io
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError
from data.release import open_release
from data.sources.splits import read_splits
from data.sources.writing import write_source
from tests.data.made_sets import labels_of, originals, write_image, write_splits
from tests.fakes import rounds_of, run_in_process

ALL = {"noisy_train": 5, "clean_train": 2, "clean_val": 1, "clean_test": 3}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "photos", ALL, ("cats", "dogs", "emus"))


def test_each_folder_is_a_list(photos: Path, tmp_path: Path) -> None:
    done = write_source(read_splits(photos), tmp_path / "out")
    assert done.counts == {"noisy_train": 15, "clean_train": 6, "clean_val": 3, "clean_test": 9}
    assert open_release(tmp_path / "out").class_names == ("cats", "dogs", "emus")
    origins = originals(tmp_path / "out")
    noisy, clean = (labels_of(tmp_path / "out", f"{name}_label_kv.txt") for name in ("noisy", "clean"))
    assert {origin: noisy[key] for origin, key in origins.items() if key in noisy} == {
        f"noisy_train/{name}/{number}.jpg": label
        for label, name in enumerate(("cats", "dogs", "emus"))
        for number in range(5)
    }
    assert clean[origins["clean_test/dogs/2.jpg"]] == 1
    assert len(clean) == 18
    split = open_release(tmp_path / "out").split("noisy_train")
    assert set(split.true.tolist()) == {-1}


@pytest.mark.parametrize("missing", [["clean_train"], ["clean_val", "clean_test"], list(ALL)[1:]])
def test_clean_lists_may_be_missing(missing: list[str], tmp_path: Path) -> None:
    names = {name: count for name, count in ALL.items() if name not in missing}
    done = write_source(read_splits(write_splits(tmp_path / "photos", names)), tmp_path / "out")
    assert done.counts == {name: 2 * count for name, count in names.items()}


def test_a_clean_list_may_lack_a_class_and_have_no_other(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "clean_val" / "dogs").iterdir():
        path.unlink()
    (photos / "clean_val" / "dogs").rmdir()
    source = read_splits(photos)
    assert source.splits["clean_val"].true.tolist() == [0, 2]
    write_image(photos / "clean_test" / "emu" / "0.jpg")
    with pytest.raises(
        DataError, match=r"clean_test has the class 'emu', which .*noisy_train lacks \(it has 'emus'\); "
    ):
        read_splits(photos)
    (photos / "noisy_train" / "emu").mkdir()  # of which nobody has a noisy photo
    assert read_splits(photos).class_names == ("cats", "dogs", "emu", "emus")
    assert not (tmp_path / "out").exists()


def test_flags_name_other_folders_in_it_or_anywhere(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "export", {"train": 4, "test": 2, "noisy_train": 9, "clean_val": 3})
    write_splits(tmp_path / "else where", {"checked": 1})
    checked = tmp_path / "else where" / "checked"
    source = read_splits(folder, {"noisy_train": Path("train"), "clean_test": Path("test"), "clean_train": checked})
    assert {name: len(one) for name, one in source.splits.items()} == {
        "noisy_train": 8, "clean_train": 2, "clean_test": 4,
    }  # fmt: skip
    assert source.splits["clean_train"].origins[0] == str(checked / "cats" / "0.jpg")
    assert source.left_out == []
    write_source(source, tmp_path / "out")
    key = originals(tmp_path / "out")[str(checked / "dogs" / "0.jpg")]
    assert (tmp_path / "out" / key).read_bytes() == (checked / "dogs" / "0.jpg").read_bytes()


def test_what_is_in_no_list_is_named(photos: Path, tmp_path: Path) -> None:
    write_splits(photos, {"unsorted": 1})
    (photos / "notes.txt").write_text("x")
    (photos / "clean_val" / "notes.txt").write_text("x")
    done = write_source(read_splits(photos), tmp_path / "out")
    assert {str(path.relative_to(photos)): why for path, why in done.left_out} == {
        "unsorted": "in no list", "notes.txt": "in no list", "clean_val/notes.txt": "in no class folder",
    }  # fmt: skip


def test_photos_are_turned_upright_and_broken_ones_refused(photos: Path, tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (24, 16), (200, 0, 0)), Image.Exif()
    exif[0x0112] = 6  # lies on its side
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    (photos / "noisy_train" / "cats" / "0.jpg").write_bytes(out.getvalue())
    write_source(read_splits(photos), tmp_path / "out")
    with Image.open(tmp_path / "out" / originals(tmp_path / "out")["noisy_train/cats/0.jpg"]) as turned:
        assert turned.size == (16, 24)
    (photos / "clean_test" / "dogs" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.jpg cannot be read as an image"):
        write_source(read_splits(photos), tmp_path / "other")


def test_refusals_name_what_is_wrong(photos: Path, tmp_path: Path) -> None:
    def refused(sentence: str, folder: Path = photos, **named: str) -> None:
        with pytest.raises(DataError, match=sentence) as error:
            read_splits(folder, {name: Path(path) for name, path in named.items()})
        assert str(error.value).isprintable()

    refused(r"nowhere is not a folder; ", tmp_path / "nowhere")
    refused(r"is not a folder; ", tmp_path / ("x" * 300))
    (tmp_path / "none").mkdir()
    refused(r"none has no folder noisy_train; it holds no folders, which --noisy-train, .* can name", tmp_path / "none")
    export = write_splits(tmp_path / "export", {"train": 1, "test": 1})
    refused(r"export has no folder noisy_train; it holds 'test', 'train', which ", export)
    refused(r"export has no folder noisy_train; it holds .*, which --noisy-train can name", export, clean_test="test")
    refused(
        r"--val is nowhere, but there is no folder .*nowhere; it must be a folder in .*export, or an absolute path\.",
        export, noisy_train="train", clean_val="nowhere",
    )  # fmt: skip
    refused(r"--test is a \| b, but", export, noisy_train="train", clean_test="a\nb")
    for path in ("train", "../export/train", "train/cats", "."):
        refused(r" is in .*; no image may be in two lists\.", export, noisy_train="train", clean_test=path)
    (photos / "clean_val" / "cats" / "0.jpg").rename(photos / "clean_val" / "cats" / "0.doc")
    refused(r"class 'cats' has 0 images \(left out: 1 \.doc")


def test_other_peoples_photos_have_other_keys(tmp_path: Path) -> None:
    """Also if they have the same names: cameras call them alike."""
    for name, side in (("one", 16), ("again", 16), ("two", 32)):
        write_splits(tmp_path / name, {"noisy_train": 2})
        write_image(tmp_path / name / "noisy_train" / "cats" / "0.jpg", side=side)
    one, again, two = (read_splits(tmp_path / name).splits["noisy_train"].keys for name in ("one", "again", "two"))
    assert one == again
    assert not set(one) & set(two)


def test_the_command_imports_and_a_run_trains(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "export", {"train": 12, "valid": 3, "test": 3})
    words = ["import", "splits", str(folder), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, [*words, "--noisy-train", "train", "--val", "valid", "--test", "test"])
    assert said.exit_code == 0, said.output
    assert "24 noisy_train, 6 clean_val, 6 clean_test images." in said.output
    run = run_in_process(tmp_path / "runs", data_dir=str(tmp_path / "out"), model="cnn", image_size=16, batch_size=2)
    lines = rounds_of(run)
    assert [line["round"] for line in lines] == [1, 2]
    assert {"test-accuracy", "val-accuracy"} <= lines[1].keys()
