"""What `check` finds sound, a run can read, and the other way round: both use one reader."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data.check import begin_check
from data.errors import BadImageError, DataError
from data.layout.finding import LIST_FILES, SPLITS
from data.match import match_names
from data.release import open_release


@pytest.fixture
def root(tiny_sample: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_sample, tmp_path / "release")
    return tmp_path / "release"


def refusal(root: Path) -> str:
    """Why the reader refuses a release; empty if it does not."""
    try:
        release = open_release(root)
        for split in SPLITS:
            release.split(split)
    except DataError as error:
        return str(error)
    return ""


def problems(root: Path) -> int:
    try:
        return begin_check(root).findings.num_problems
    except DataError:
        return 1


def lone_return(root: Path) -> None:
    path = root / LIST_FILES["clean_val"]
    path.write_bytes(path.read_bytes() + b"\r")


def empty_list(root: Path) -> None:
    (root / LIST_FILES["clean_val"]).write_bytes(b"")


def true_label_out_of_range(root: Path) -> None:
    path = root / "true_label_kv.txt"
    path.write_bytes(path.read_bytes().rpartition(b" ")[0] + b" 14\n")


def returns_in_the_middle(root: Path) -> None:
    path = root / "noisy_label_kv.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r", 1))


@pytest.mark.parametrize("damage", [lone_return, empty_list, true_label_out_of_range, returns_in_the_middle])
def test_check_sees_what_the_reader_refuses(root: Path, damage: Callable[[Path], None]) -> None:
    assert (refusal(root), problems(root)) == ("", 0)
    damage(root)
    assert refusal(root)
    assert problems(root) == 1


ODD = (b"\r", b"\n", b"\n\n", b"\x00", b" ", b"\t", b"\xef\xbb\xbf", b"/../", b"//", b"\xff", b"9" * 12, b"\r\n", b"")


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_in_a_text_file_are_judged_alike(tiny_sample: Path, tmp_path: Path, seed: int) -> None:
    """Put in or replaced at random places, also at both ends of a file."""
    rng = random.Random(seed)
    for file in tiny_sample.glob("*.txt"):
        shutil.copy(file, tmp_path)
    (tmp_path / "images").symlink_to(tiny_sample / "images")
    path = rng.choice(sorted(tmp_path.glob("*.txt")))
    data = path.read_bytes()
    for _ in range(rng.choice([1, 1, 2])):
        begin = rng.choice([0, len(data), rng.randrange(len(data) + 1)])
        end = min(len(data), begin + rng.choice([0, 0, 1, 30]))
        data = data[:begin] + rng.choice(ODD) + data[end:]
    path.write_bytes(data)
    assert bool(refusal(tmp_path)) <= bool(problems(tmp_path)), refusal(tmp_path)


def test_folders_that_are_links_are_followed(root: Path) -> None:
    (root / "images").rename(root.parent / "disk")
    (root / "images").mkdir()
    for leaf in (root.parent / "disk").iterdir():
        (root / "images" / leaf.name).symlink_to(leaf)
    (root / "images" / "3" / "again").symlink_to(root / "images")  # a circle
    begun = begin_check(root)
    assert refusal(root) == ""
    assert begun.findings.num_problems == 0
    assert len(begun.present) == 192


def test_a_pipe_is_no_image(root: Path) -> None:
    key = (root / LIST_FILES["clean_val"]).read_text().split()[0]
    (root / key).unlink()
    os.mkfifo(root / key)
    assert begin_check(root).findings.found["missing image"] == [(key, f"must be at {root / key}")]
    with pytest.raises(BadImageError, match=f"image {key} is no file; it must be a whole one, at {root / key}"):
        open_release(root).store.encoded(key.encode())


def renamed(root: Path, change: Callable[[str], str]) -> None:
    for path in sorted((root / "images").rglob("*.jpg")):
        path.rename(path.with_name(change(path.name)))


@pytest.mark.parametrize("suffix", [".JPG", ".png", ".jpeg"])
def test_names_that_differ_in_case_or_suffix_are_matched_when_asked_for(root: Path, suffix: str) -> None:
    before = {split: open_release(root).split(split) for split in SPLITS}
    pixels = {key: open_release(root).store.encoded(key) for key in before["clean_val"].keys}
    renamed(root, lambda name: name.replace(".jpg", suffix))
    key = before["noisy_train"].keys[0].decode()
    there = root / key.replace(".jpg", suffix)
    assert f"the first at {root / key}; {there} is there instead; names must be those of the keys" in refusal(root)
    assert "unpack" not in refusal(root)
    with pytest.raises(DataError, match=r"is missing; it must be at .*is there instead"):
        open_release(root).store.encoded(key.encode())
    found = begin_check(root).findings.found["other case or suffix"]
    assert len(found) == 192
    assert found[0][1].startswith("found at ")
    done = match_names(root, root.parent / "matched")
    assert (done.images, done.renamed) == (192, 192)
    assert (refusal(root.parent / "matched"), problems(root.parent / "matched")) == ("", 0)
    matched = open_release(root.parent / "matched")
    for split, expected in before.items():
        assert matched.split(split).digest == expected.digest  # partitions of these keys stay valid
    assert all(matched.store.encoded(key) == data for key, data in pixels.items())
    assert sorted(path.name for path in root.iterdir()) == sorted(
        path.name for path in root.parent.joinpath("matched").iterdir()
    )


def test_what_cannot_be_matched_is_named(root: Path) -> None:
    out = root.parent / "matched"

    def refused(sentence: str, out: Path = out) -> None:
        with pytest.raises(DataError, match=sentence):
            match_names(root, out)
        assert not out.exists()

    refused("has every image under the name of its key already; there is nothing to match")
    refused("which is inside", root / "out")
    renamed(root, str.upper)
    key = (root / LIST_FILES["clean_val"]).read_text().split()[0]
    file = root / key.replace(".jpg", ".JPG")
    shutil.copyfile(file, file.with_suffix(".png"))
    refused(rf"could both be image {key}; only one of them may be there")
    file.with_suffix(".png").unlink()
    file.rename(file.with_suffix(".txt"))
    refused(rf"1 of 192 images have no file below .*, whatever its case and suffix, the first {key}; ")
