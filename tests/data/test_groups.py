"""Whom or where images come from: kept with a release in every form, and refused where it makes no sense."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data.__main__ import app
from data.check import begin_check
from data.errors import DataError
from data.layout import index as index_module
from data.match import match_names
from data.pack_writer import Packing, write_pack
from data.release import open_release, training_split
from data.sources.folder import Shares, read_folder
from data.sources.groups import with_groups
from data.sources.writing import write_source
from data.stores.pack import open_pack
from data.summary import as_table, summarize
from data.tensors import map_tensors
from tests.data.test_hostile_packs import sentence, write
from tests.odd_values import is_a_sentence

SITES = "Oslo\nKilt & Söhne\nempty\n"


@pytest.fixture
def grouped(write_release: Callable[..., Path], lists: Mapping[str, list[str]]) -> Path:
    """The tiny release: images of noisy train are of sites 1, 0, 0, none, 1, 1; the one of clean test of site 1."""
    root = write_release()
    numbers = dict(zip(lists["noisy_train"], (1, 0, 0, -1, 1, 1), strict=True)) | {lists["clean_test"][0]: 1}
    lines = [f"{key} {number}\n" for key, number in numbers.items() if number >= 0]
    (root / "group_kv.txt").write_text("".join(reversed(lines)), encoding="utf-8")
    (root / "group_names.txt").write_text(SITES, encoding="utf-8")
    return root


@pytest.mark.parametrize("form", ["folder", "cached", "pack", "pixels"])
def test_a_release_keeps_its_groups(
    grouped: Path, lists: Mapping[str, list[str]], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = grouped
    if form == "cached":
        monkeypatch.setattr(index_module, "SETTLED", -1.0)
        assert open_release(grouped).group_names
        monkeypatch.setattr(index_module, "build_index", None)
    if form in ("pack", "pixels"):
        root = tmp_path / "a.pack"
        write_pack(open_release(grouped), root, Packing(16, True) if form == "pixels" else Packing())
    release = open_release(root)
    assert release.group_names == ("Oslo", "Kilt & Söhne", "empty")
    split = release.split("noisy_train")
    assert split.groups is not None
    assert split.groups.dtype == np.int32
    assert dict(zip(lists["noisy_train"], (1, 0, 0, -1, 1, 1), strict=True)) == {
        key.decode(): group for key, group in zip(split.keys.tolist(), split.groups.tolist(), strict=True)
    }
    part = split.take(np.array([4, 1])).with_labels(np.array([0, 0]))
    assert part.groups is not None
    assert part.groups.tolist() == split.groups[[4, 1]].tolist()
    test, val = release.split("clean_test").groups, release.split("clean_val").groups
    assert test is not None
    assert (test.tolist(), val) == ([1], None)
    mini = training_split(release, "noisy-mini")
    assert mini.groups is not None
    assert len(mini.groups) == len(mini.keys) == 1


def test_packs_without_groups_are_what_they_were(write_release: Callable[..., Path], tmp_path: Path) -> None:
    write_pack(open_release(write_release()), tmp_path / "a.pack", Packing())
    metadata, arrays = map_tensors(tmp_path / "a.pack")
    assert list(metadata) == ["format", "version", "checksum", "identity", "classes", "image-size"]
    assert list(arrays) == ["images", "offsets", "counts", "checksums", "order", "noisy", "clean", "true", "keys"]
    seen = hashlib.sha256(repr(("1", Packing(), ("Kilt", "Anorak", "Poncho"))).encode())
    for name in ("keys", "noisy", "clean", "true", "counts"):
        seen.update(name.encode() + arrays[name].tobytes())
    assert metadata["identity"] == seen.hexdigest()
    assert open_pack(tmp_path / "a.pack").index.group is None
    assert open_release(tmp_path / "a.pack").group_names == ()


def test_a_pack_begun_with_other_groups_is_not_continued(grouped: Path, tmp_path: Path) -> None:
    write_pack(open_release(grouped), tmp_path / "a.pack", Packing())
    (grouped / "group_names.txt").write_text("Oslo\nBergen\nempty\n", encoding="utf-8")
    with pytest.raises(DataError, match="exists already and is not this pack"):
        write_pack(open_release(grouped), tmp_path / "a.pack", Packing())


@pytest.mark.parametrize(
    ("names", "number", "problem"),
    [
        (["a", "b"], 2, "groups from -1 to 2, and 2 names of groups"),
        (["a", "b", "c"], -2, "groups from -2 to 1, and 3 names of groups"),
        (["a", "a", "c"], 1, "no list of names of its groups"),
        ([], 1, "no list of names of its groups"),
        (["a", 3], 1, "no list of names of its groups"),
        ({"a": "b"}, 1, "no list of names of its groups"),
        (None, 1, "has the arrays checksums, clean, counts, group, images"),
    ],
)
def test_hostile_groups_of_a_pack_are_refused(
    grouped: Path, tmp_path: Path, names: object, number: int, problem: str
) -> None:
    write_pack(open_release(grouped), tmp_path / "a.pack", Packing())
    metadata, arrays = map_tensors(tmp_path / "a.pack")
    arrays = {name: array.copy() for name, array in arrays.items()}
    arrays["group"][0] = number
    metadata = {key: value for key, value in metadata.items() if key != "groups"}
    if names is not None:
        metadata["groups"] = json.dumps(names)
    assert problem in sentence(write(tmp_path / "bad.pack", metadata, arrays))
    del arrays["group"]
    if names == ["a", "b"]:
        assert "has the arrays" in sentence(write(tmp_path / "bad.pack", metadata, arrays))


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("group_kv.txt", "images/0/19/1000000019,2236067019.jpg 3\n", "a label from 0 to 2"),
        ("group_kv.txt", "images/0/19/1000000019,2236067019.jpg\n", "a label from 0 to 2"),
        ("group_kv.txt", "images/0/19/1,1.jpg 1\nimages/0/19/1,1.jpg 1\n", "a key must appear once"),
        ("group_kv.txt", None, "is missing"),
        ("group_names.txt", None, "is missing"),
        ("group_names.txt", "", "must have at least one line"),
        ("group_names.txt", "a\na\nb\n", "line 2: 'a' must be a group name"),
        ("group_names.txt", "a\n\nb\n", "line 2: '' must be a group name"),
        ("group_names.txt", "a\nb\x1b\nc\n", "line 2: 'b\\x1b' must be a group name"),
        ("group_names.txt", "a\n" + 201 * "b" + "\nc\n", "must be a group name of at most 200"),
    ],
)
def test_wrong_files_are_refused_and_found_by_check(grouped: Path, file: str, text: str | None, problem: str) -> None:
    if text is None:
        (grouped / file).unlink()
    else:
        (grouped / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        open_release(grouped).split("noisy_train")
    assert problem in str(caught.value)
    assert is_a_sentence(str(caught.value))
    assert begin_check(grouped).findings.num_problems == 1


def test_check_finds_nothing_wrong_and_match_takes_them_along(grouped: Path, tmp_path: Path) -> None:
    assert begin_check(grouped).findings.num_problems == 0
    image = grouped / "images/7/88/314159265,2718281788.jpg"
    image.rename(image.with_suffix(".JPG"))
    match_names(grouped, tmp_path / "matched")
    for name in ("group_kv.txt", "group_names.txt"):
        assert (tmp_path / "matched" / name).read_bytes() == (grouped / name).read_bytes()


def test_show_says_how_large_groups_are(grouped: Path, write_release: Callable[..., Path]) -> None:
    lines = as_table(summarize(open_release(grouped))).splitlines()
    assert "The images of noisy_train belong to 2 groups of 2 to 3 images, median 2; 1 belong to none." in lines
    assert "The images of clean_test belong to 1 groups of 1 to 1 images, median 1." in lines
    for name in ("group_kv.txt", "group_names.txt"):
        (grouped / name).unlink()
    assert "groups" not in as_table(summarize(open_release(grouped)))


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Path]:
    """Two classes of five photos, and a file that says who took them: the first two are Ann's."""
    lines = ["cats/none.png\tNobody"]
    for label, name in enumerate(("cats", "dogs and more")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (20, 16), (100 * label, 40 * number, 9)).save(tmp_path / "photos" / name / f"{number}.png")
            lines.append(f"{'./' * label}{name}/{number}.png\t{'Ann' if number < 2 else 'Bob B.'}")
    (tmp_path / "sites.tsv").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    return tmp_path / "photos", tmp_path / "sites.tsv"


@pytest.mark.parametrize("out", ["out", "out.pack"])
def test_photos_get_the_groups_of_a_file(photos: tuple[Path, Path], tmp_path: Path, out: str) -> None:
    folder, file = photos
    source = with_groups(read_folder(folder, Shares(only="noisy_train"), 0.0, 1), file)
    write_source(source, tmp_path / out)
    release = open_release(tmp_path / out)
    assert release.group_names == ("Ann", "Bob B.")
    split = release.split("noisy_train")
    beside = tmp_path / ("out.pack.originals.tsv" if out.endswith(".pack") else "out/originals.tsv")
    origin_of = dict(line.split("\t") for line in beside.read_text(encoding="utf-8").splitlines())
    assert split.groups is not None
    for key, group in zip(split.keys.tolist(), split.groups.tolist(), strict=True):
        assert group == (int(Path(origin_of[key.decode()]).stem) >= 2)


def test_groups_and_their_file_are_part_of_what_an_import_resumes(photos: tuple[Path, Path]) -> None:
    folder, file = photos
    plain = read_folder(folder, Shares(), 0.0, 1)
    assert with_groups(plain, None) is plain
    assert with_groups(plain, file).identity != plain.identity


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cats/0.png\tAnn\n", r"names no group for 9 of 10 images, the first cats/1\.png; each image needs a line"),
        ("cats/0.png Ann\n", r"line 1 is 'cats/0\.png Ann'; it must be a path, a tab and the name of a group\."),
        ("cats/0.png\t\n", "line 1 is .*; it must be a path, a tab"),
        ("\tAnn\n", "line 1 is .*; it must be a path, a tab"),
        ("cats/0.png\tA\x07\n", "line 1 is .*; it must be a path, a tab"),
        ("cats/0.png\tA\n./cats/0.png\tB", r"line 2: cats/0\.png is there already; a path must appear once"),
        ("", "line 1 is ''; it must be a path, a tab"),
        (None, "is missing"),
    ],
)
def test_a_wrong_file_of_groups_is_one_sentence(photos: tuple[Path, Path], text: str | None, problem: str) -> None:
    folder, file = photos
    file.unlink()
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem) as caught:
        with_groups(read_folder(folder, Shares(), 0.0, 1), file)
    assert is_a_sentence(str(caught.value))


def test_the_command_takes_the_file(photos: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = photos
    line = ["import", "folder", str(folder), "--out", str(tmp_path / "out"), "--groups", str(file)]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "group_names.txt").read_text(encoding="utf-8") == "Ann\nBob B.\n"
    assert len((tmp_path / "out" / "group_kv.txt").read_text(encoding="utf-8").splitlines()) == 10
