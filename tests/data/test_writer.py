"""The text files of a release, byte for byte in the released form."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.layout.finding import LIST_FILES
from data.layout.writer import draw_keys
from data.sample import NAMES, draw_sample
from data.whole_folders import complete_or_absent

COUNTS = {"noisy_train": 300, "clean_train": 60, "clean_val": 50, "clean_test": 70}
KEY = re.compile(r"images/([0-9])/([0-9]{2})/(0|[1-9][0-9]{0,9}),(0|[1-9][0-9]{0,9})\.jpg")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "release"
    draw_sample(out, train=300, clean_train=60, val=50, test=70, image_size=16, seed=11)
    return out


def _list(folder: Path, split: str) -> list[bytes]:
    return (folder / LIST_FILES[split]).read_bytes().split(b"\n")


def _labels(folder: Path, file: str) -> dict[bytes, int]:
    lines = (folder / file).read_bytes().removesuffix(b"\n").split(b"\n")
    pairs = [line.split(b" ") for line in lines]
    assert len({key for key, _ in pairs}) == len(pairs)
    return {key: int(label) for key, label in pairs}


def test_the_files_are_the_released_ones_and_the_true_labels(drawn: Path) -> None:
    assert {path.name for path in drawn.iterdir()} == {
        "category_names_eng.txt", "category_names_chn.txt", "clean_label_kv.txt", "noisy_label_kv.txt",
        "noisy_train_key_list.txt", "clean_train_key_list.txt", "clean_val_key_list.txt", "clean_test_key_list.txt",
        "true_label_kv.txt", "images",
    }  # fmt: skip


def test_category_files_have_the_released_bytes(drawn: Path) -> None:
    english = (drawn / "category_names_eng.txt").read_bytes()
    assert len(english) == 105  # as released: no newline at the end
    assert english == "\n".join(NAMES).encode()
    chinese = (drawn / "category_names_chn.txt").read_bytes()
    assert len(chinese) == 111  # as released: UTF-8, newline at the end
    assert chinese.endswith("内衣\n".encode())


@pytest.mark.parametrize("split", list(COUNTS))
def test_key_lists_are_sorted_and_end_without_newline(drawn: Path, split: str) -> None:
    keys = _list(drawn, split)
    assert len(keys) == COUNTS[split]
    assert keys[-1] != b""
    assert keys == sorted(keys)
    assert all(KEY.fullmatch(key.decode("ascii")) for key in keys)


def test_label_files_are_shuffled_and_end_with_a_newline(drawn: Path) -> None:
    for file in ("clean_label_kv.txt", "noisy_label_kv.txt"):
        raw = (drawn / file).read_bytes()
        lines = raw.split(b"\n")
        assert lines[-1] == b""
        assert b"\r" not in raw
        assert lines[:-1] != sorted(lines[:-1])
        for line in lines[:-1]:
            key, label = line.decode("ascii").split(" ")
            assert KEY.fullmatch(key)
            assert re.fullmatch("[0-9]|1[0-3]", label)


def test_every_folder_is_the_second_number_modulo_1000(drawn: Path) -> None:
    for split in COUNTS:
        for key in _list(drawn, split):
            match = KEY.fullmatch(key.decode())
            assert match
            hundreds, rest, _, second = match.groups()
            assert f"{int(second) % 1000:03}" == hundreds + rest


def test_lists_are_disjoint_and_label_files_cover_what_they_should(drawn: Path) -> None:
    lists = {split: set(_list(drawn, split)) for split in COUNTS}
    everything = set().union(*lists.values())
    assert len(everything) == sum(COUNTS.values())
    clean, noisy = _labels(drawn, "clean_label_kv.txt"), _labels(drawn, "noisy_label_kv.txt")
    assert clean.keys() == everything - lists["noisy_train"]
    assert lists["noisy_train"] <= noisy.keys()
    double = noisy.keys() - lists["noisy_train"]
    assert double <= clean.keys()  # double-labelled images are only in the clean lists
    assert 0.35 < len(double) / len(clean) < 0.7  # about 52 % in the release
    assert _labels(drawn, "true_label_kv.txt").keys() == lists["noisy_train"]


def test_every_key_has_its_image_and_no_image_is_left_over(drawn: Path) -> None:
    files = {path.relative_to(drawn).as_posix().encode() for path in (drawn / "images").rglob("*.jpg")}
    assert files == set().union(*(set(_list(drawn, split)) for split in COUNTS))


def test_keys_are_unique_and_use_all_folders() -> None:
    keys = draw_keys(20_000, np.random.default_rng(1))
    assert len(set(keys)) == 20_000
    assert len({key.rsplit("/", 1)[0] for key in keys}) == 1000


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), complete_or_absent(tmp_path / "out") as folder:
        (folder / "half").write_text("")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def _occupied(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "file").write_text("")
    yield tmp_path / "file"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    yield tmp_path / "full"


def test_nothing_that_exists_is_overwritten(tmp_path: Path) -> None:
    for out in _occupied(tmp_path):
        with (
            pytest.raises(DataError, match=r"exists already|which is a file; it must be a folder"),
            complete_or_absent(out),
        ):
            pass
    (tmp_path / "empty").mkdir()
    with complete_or_absent(tmp_path / "empty") as folder:
        (folder / "new").write_text("")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["new"]


def test_a_link_is_followed_and_the_current_folder_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with complete_or_absent(tmp_path / "link") as folder:
        (folder / "new").write_text("")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["new"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="is the current folder"), complete_or_absent(Path()):
        pass


def test_the_loser_of_a_race_removes_its_copy(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="written by another process"), complete_or_absent(out):
        out.mkdir()
        (out / "theirs").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["theirs"]
