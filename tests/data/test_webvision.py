"""WebVision 1.0: lists with labels, names that several classes have, the mini version, images that are missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError
from data.release import open_release
from data.sources.webvision import read_webvision
from data.sources.writing import write_source
from tests.data.made_sets import labels_of, originals, sentences_of_damage, write_image, write_lines, write_webvision
from tests.fakes import rounds_of, run_in_process


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return write_webvision(tmp_path / "webvision")


def test_googles_list_is_noisy_train_and_validation_is_clean_test(web: Path, tmp_path: Path) -> None:
    done = write_source(read_webvision(web), tmp_path / "out")
    assert done.counts == {"noisy_train": 24, "clean_test": 8}
    origins = originals(tmp_path / "out")
    noisy, clean = (labels_of(tmp_path / "out", f"{name}_label_kv.txt") for name in ("noisy", "clean"))
    assert {origin: noisy[key] for origin, key in origins.items() if key in noisy} == {
        f"google/q{number % 4 + 1:04}/image{number}.jpg": number % 4 for number in range(24)
    }
    assert {origin: clean[key] for origin, key in origins.items() if key in clean} == {
        f"val_images_256/val{number + 1:06}.jpg": number % 4 for number in range(8)
    }
    assert not (tmp_path / "out" / "true_label_kv.txt").exists()
    for origin, key in origins.items():
        assert (tmp_path / "out" / key).read_bytes() == (web / origin).read_bytes()


def test_two_classes_called_crane_keep_the_numbers_of_their_synsets(web: Path) -> None:
    """Names are those of the whole file, whatever part of the classes is imported."""
    names = ("tench, Tinca tinca", "crane (n02012849)", "goldfish, Carassius auratus", "crane (n03126707)")
    assert read_webvision(web).class_names == names
    assert read_webvision(web, classes=2).class_names == names[:2]
    write_lines(web / "info" / "synsets.txt", ["tench", "crane", "goldfish", "scorpion"])  # a copy without numbers
    assert read_webvision(web).class_names == ("tench", "crane", "goldfish", "scorpion")


def test_the_first_classes_alone_and_flickr_too(web: Path) -> None:
    mini = read_webvision(web, classes=2).splits
    assert {name: np.bincount(one.noisy + one.true + 1).tolist() for name, one in mini.items()} == {
        "noisy_train": [6, 6], "clean_test": [2, 2],
    }  # fmt: skip
    both = read_webvision(web, flickr=True)
    assert len(both.splits["noisy_train"]) == 32
    assert "flickr/q0001/image0.jpg" in both.splits["noisy_train"].origins
    keys = [key for one in both.splits.values() for key in one.keys]
    assert len(set(keys)) == 40
    assert both.splits["clean_test"].keys == read_webvision(web).splits["clean_test"].keys


@pytest.mark.parametrize("classes", [-1, 0, 1, 5, 10**9])
def test_so_many_classes_there_are(web: Path, classes: int) -> None:
    with pytest.raises(
        DataError, match=rf"--classes is {classes}; it must be from 2 to 4, as synsets\.txt has so many"
    ):
        read_webvision(web, classes=classes)


def test_a_few_missing_images_are_left_out_and_many_refused(tmp_path: Path) -> None:
    """At most ten, or one in a hundred."""
    web = write_webvision(tmp_path / "webvision", google=40, val=8)
    for number in range(10):
        (web / f"google/q{number % 4 + 1:04}/image{number}.jpg").unlink()
    (web / "google/q0003/image10.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="11 files cannot be imported, all named in"):
        write_source(read_webvision(web), tmp_path / "out")
    write_image(web / "google/q0003/image10.jpg")
    done = write_source(read_webvision(web), tmp_path / "out")
    assert done.counts == {"noisy_train": 30, "clean_test": 8}
    assert sorted(path.name for path, _ in done.left_out) == [f"image{number}.jpg" for number in range(10)]


def test_levels_and_what_is_missing(web: Path, tmp_path: Path) -> None:
    assert read_webvision(tmp_path).root == web
    assert read_webvision(web / "info").root.resolve() == web
    for name in ("train_filelist_google.txt", "val_filelist.txt", "synsets.txt"):
        text = (web / "info" / name).read_bytes()
        (web / "info" / name).unlink()
        refused(web, rf"{name} is missing; ")
        (web / "info" / name).write_bytes(text)
    (web / "info" / "train_filelist_flickr.txt").unlink()
    read_webvision(web)
    refused(web, r"train_filelist_flickr\.txt is missing; ", flickr=True)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"empty has no info; the folder of WebVision 1\.0 must hold info\.")


def refused(web: Path, sentence: str, flickr: bool = False) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        read_webvision(web, flickr=flickr)
    assert str(error.value).isprintable()


Change = Callable[[bytes], bytes]
GOOGLE, VAL, SYNSETS = "train_filelist_google.txt", "val_filelist.txt", "synsets.txt"
HARMLESS: dict[str, tuple[str, Change]] = {
    "CRLF": (GOOGLE, lambda text: text.replace(b"\n", b"\r\n")),
    "CRLF of classes": (SYNSETS, lambda text: text.replace(b"\n", b"\r\n")),
    "BOM": (GOOGLE, lambda text: b"\xef\xbb\xbf" + text),
    "BOM of classes": (SYNSETS, lambda text: b"\xef\xbb\xbf" + text),
    "blank lines": (GOOGLE, lambda text: text.replace(b"\n", b"\n\n")),
    "no last newline": (VAL, lambda text: text.rstrip(b"\n")),
    "a last blank line": (SYNSETS, lambda text: text + b"\n"),
    "spaces at the ends": (VAL, lambda text: text.replace(b"\n", b" \n").replace(b" 0 ", b"  0 ")),
}


@pytest.mark.parametrize("harmless", HARMLESS)
def test_other_spellings_of_the_same_lists_make_the_same_release(web: Path, harmless: str) -> None:
    before = read_webvision(web).identity
    name, change = HARMLESS[harmless]
    text = (web / "info" / name).read_bytes()
    (web / "info" / name).write_bytes(change(text))
    assert change(text) != text
    assert read_webvision(web).identity == before


def more(line: bytes) -> Change:
    return lambda text: text + line + b"\n"


NO_LINE = r"line 25 is .*; it must be a path without '\.\.', a space and a label from 0 to 3\."
DAMAGES: dict[str, tuple[str, Change, str]] = {
    "empty": (GOOGLE, lambda _: b"", r"google\.txt is empty"),
    "label out of range": (GOOGLE, more(b"google/q0001/x.jpg 4"), NO_LINE),
    "negative label": (GOOGLE, more(b"google/q0001/x.jpg -1"), NO_LINE),
    "huge label": (GOOGLE, more(b"google/q0001/x.jpg " + b"9" * 5000), NO_LINE),
    "no label": (GOOGLE, more(b"google/q0001/x.jpg"), NO_LINE),
    "no path": (GOOGLE, more(b"0"), NO_LINE),
    "other digits": (GOOGLE, more("google/q0001/x.jpg ٣".encode()), NO_LINE),
    "a third column": (GOOGLE, more(b"google/q0001/x.jpg 0 x"), NO_LINE),
    "a tab": (GOOGLE, more(b"google/q0001/x.jpg\t0"), NO_LINE),
    "climbing": (GOOGLE, more(b"../../x.jpg 0"), NO_LINE),
    "climbing inside": (GOOGLE, more(b"google/../../x.jpg 0"), NO_LINE),
    "absolute": (GOOGLE, more(b"/etc/x.jpg 0"), NO_LINE),
    "NUL": (GOOGLE, more(b"google/\0.jpg 0"), NO_LINE),
    "long": (GOOGLE, more(b"x" * 300 + b".jpg 0"), NO_LINE),
    "twice": (GOOGLE, more(b"google/q0002/image1.jpg 1"), r"line 25: google/q0002/image1\.jpg is in line 2 already;"),
    "twice with another label": (GOOGLE, more(b"google/q0002/image1.jpg 2"), r"line 25: .* is in line 2 already"),
    "of Google and of Flickr": (GOOGLE, more(b"flickr/q0001/image0.jpg 0"), r"flickr\.txt has images that .*google"),
    "other encoding": (GOOGLE, more(b"caf\xe9.jpg 0"), r"google\.txt is not UTF-8 text"),
    "validation out of range": (VAL, more(b"val9.jpg 1000"), r"val_filelist\.txt, line 9 is .*; it must be a path"),
    "validation climbs": (VAL, more(b"../x.jpg 1"), r"val_filelist\.txt, line 9 is .*; it must be a path"),
    "a blank class": (SYNSETS, lambda text: text.replace(b"\n", b"\n\n", 1), r"synsets\.txt, line 2 is blank; it must"),
    "a class twice": (SYNSETS, lambda text: text.replace(b"n03126707", b"n02012849"), r"synsets\.txt, line 4: 'crane"),
    "a long class": (SYNSETS, more(b"n00000001 " + b"x" * 300), r"synsets\.txt, line 5: .* must be a class name of at"),
    "one class": (SYNSETS, lambda _: b"n01440764 tench\n", r"synsets\.txt has one class; it must have at least 2"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_lists_are_refused_in_one_sentence(web: Path, damage: str) -> None:
    name, change, sentence = DAMAGES[damage]
    (web / "info" / name).write_bytes(change((web / "info" / name).read_bytes()))
    refused(web, sentence, flickr=True)


def test_any_byte_may_be_another_one(web: Path) -> None:
    said = set()
    for name in (GOOGLE, VAL, SYNSETS):
        said |= sentences_of_damage(web / "info" / name, 23, b"\0\n\t/. \xff", lambda: read_webvision(web))
    assert len(said) > 50
    assert all(sentence.isprintable() for sentence in said)


def test_the_command_imports_and_a_run_trains(tmp_path: Path) -> None:
    web = write_webvision(tmp_path / "webvision", google=60, val=12)
    words = ["import", "webvision", str(web), "--out", str(tmp_path / "web.pack"), "--classes", "3", "--flickr"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "51 noisy_train, 9 clean_test images." in said.output
    assert len(open_release(tmp_path / "web.pack").class_names) == 3
    run = run_in_process(
        tmp_path / "runs", data_dir=str(tmp_path / "web.pack"), model="cnn", image_size=16, val_split="none",
        batch_size=4,
    )  # fmt: skip
    lines = rounds_of(run)
    assert [line["round"] for line in lines] == [1, 2]
    assert all(0 <= line["test-accuracy"] <= 1 for line in lines)
