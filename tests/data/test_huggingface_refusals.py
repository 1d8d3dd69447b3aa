"""Whatever is wrong with parquet files, or with what is wanted of them, is one sentence before anything is written."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.sources import parquet_images
from data.sources.hub_files import Wanted
from data.sources.huggingface import read_huggingface
from tests.data.parquet_files import CLASSES, NAMES, picture, pictures, write, write_hub
from tests.odd_values import is_a_sentence

NOISY = Wanted(label="noisy", true_label="label")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return write_hub(tmp_path / "hub")


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/hostname", "link/secret.png", "a\0b", "x" * 5000, "absent.png"]
)
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "hub"
    (tmp_path / "secret.png").write_bytes(picture(7))
    images = [*pictures([1, 2]), {"bytes": None, "path": path}]
    write(root / "train.parquet", {"image": images, "label": [0, 1, 1]}, CLASSES)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(
        DataError, match=r"train\.parquet:2 holds no image but its path, .*, (which|and there is no)"
    ) as e:
        read_huggingface(str(root), Wanted())
    assert is_a_sentence(str(e.value))


def _rewrite(name: str, columns: dict[str, Any], classes: Any = CLASSES, **more: Any) -> Any:
    return lambda root: write(root / "data" / name, columns, classes, **more)


TEST, SHARD = "test-00000-of-00001.parquet", "train-00001-of-00002.parquet"
TWO = {"image": pictures([4, 5]), "label": [0, 1], "noisy": [0, 1]}


@pytest.mark.parametrize(
    ("change", "wanted", "sentence"),
    [
        (
            None,
            Wanted(),
            "has 2 columns that could be the labels; --label must name one of its columns, image, label, n",
        ),
        (None, Wanted(label="lable"), "has no column 'lable'; its columns are image, label, noisy."),
        (
            None,
            Wanted(label="noisy"),
            "test-00000-of-00001.parquet has no column 'noisy'; its columns are image, label.",
        ),
        (None, Wanted(label="label", image="noisy"), "has column 'noisy' as int64; --image must name one of images"),
        (
            None,
            Wanted(label="image", true_label="label"),
            "as struct<bytes: binary, path: string>; --label must name one of class",
        ),
        (
            None,
            Wanted(label="label", train="training"),
            "no split 'training'; --train-split must name one of its splits, test, train, validation, or be empty",
        ),
        (None, Wanted(label="label", test="train"), "the split 'train' is given for two lists."),
        (None, Wanted(label="label", train="", test="", val=""), "all empty; at least one must name a split."),
        (None, Wanted(label="label", revision="main"), "--revision is 'main', but .* is a folder"),
        (None, Wanted(label="label", config="small"), "no folder 'small' with parquet files; --config must name one."),
        (None, Wanted(label="label", group="site"), "has no column 'site'"),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": [3]}),
            NOISY,
            "has label 3 in column 'label', which has 3 classes; it must be from 0 to 2, or -1.",
        ),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": [-2]}),
            NOISY,
            "has -2 in column 'label'; it must have whole numbers from 0",
        ),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": [-1]}),
            NOISY,
            "no label of any row of .*; --test-split must name another",
        ),
        (_rewrite(TEST, {"image": [None], "label": [1]}), NOISY, "no image in any row of data/test"),
        (_rewrite(TEST, {"image": [], "label": []}, types={"label": pa.int64()}), NOISY, "has no row in --test-split"),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": [0]}, {"label": ["cat", "owl", "dog"]}),
            NOISY,
            "different names of classes",
        ),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": [0]}, {"label": ["cat", "cat"]}),
            NOISY,
            "wrong name of a class in column 'label', number 2: 'cat'",
        ),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": [0.5]}),
            NOISY,
            "as double; --true-label must name one of class labels",
        ),
        (
            _rewrite(TEST, {"image": pictures([8]), "label": ["cow"]}),
            NOISY,
            "has a label 'cow', which is no name of its class labels.",
        ),
        (
            _rewrite(SHARD, {**TWO, "label": ["cat", "dog"]}, {"noisy": NAMES}),
            NOISY,
            "column 'label', holds texts, and in .* it holds class labels; all files",
        ),
        (
            _rewrite(SHARD, TWO, {**CLASSES, "noisy": ["x", "y", "z"]}),
            NOISY,
            "column 'noisy', has other names of classes, and in",
        ),
        (
            _rewrite(SHARD, {"image": pictures([4]), "label": [0]}),
            NOISY,
            "00001-of-00002.parquet has no column 'noisy'",
        ),
        (_rewrite(SHARD, {"picture": [picture(1)], "label": [0], "noisy": [0]}), NOISY, "has no column 'image'"),
        (
            _rewrite(SHARD, TWO, None, metadata=b"[" * 9999),
            NOISY,
            "metadata 'huggingface' that is not as `datasets` writes it",
        ),
        (
            _rewrite(
                SHARD, TWO, None, metadata=b'{"info": {"features": {"noisy": {"_type": "ClassLabel", "names": [3]}}}}'
            ),
            NOISY,
            "column 'noisy' whose names of classes are no list of texts",
        ),
        (
            lambda root: (root / "data" / SHARD).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid 3"),
            NOISY,
            "is a pointer of Git LFS, not the file; `git lfs pull`",
        ),
        (
            lambda root: (root / "data" / SHARD).write_bytes(b"<html>"),
            NOISY,
            "is no parquet file: it begins with '<html>'",
        ),
        (lambda root: (root / "data" / SHARD).write_bytes(b""), NOISY, "is no parquet file"),
        (
            lambda root: (root / "data" / SHARD).write_bytes((root / "data" / SHARD).read_bytes()[:-9]),
            NOISY,
            "(is damaged|cannot be read) \\(.*\\); copy it again.",
        ),
        (
            lambda root: (root / "more").mkdir() or (root / "data" / SHARD).rename(root / "more" / SHARD),
            NOISY,
            "has files of split 'train' in .*data and .*more; name the folder of one with --config",
        ),
        (
            lambda root: [path.unlink() for path in root.rglob("*.parquet")],
            NOISY,
            "holds no file that ends in .parquet",
        ),
    ],
)
def test_each_mistake_is_one_sentence(hub: Path, change: Any, wanted: Wanted, sentence: str) -> None:
    if change:
        change(hub)
    with pytest.raises(DataError, match=sentence) as caught:
        read_huggingface(str(hub), wanted)
    assert is_a_sentence(str(caught.value))


def test_a_column_that_is_there_twice_and_a_huge_row_group_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twice").mkdir()
    table = pa.table([pa.array([picture(1)]), pa.array([0]), pa.array([1])], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "twice" / "train.parquet")
    with pytest.raises(DataError, match="has more than one column 'label'"):
        read_huggingface(str(tmp_path / "twice"), Wanted(label="label"))
    write(tmp_path / "huge" / "train.parquet", {"image": pictures([0]), "label": [0]}, CLASSES)
    monkeypatch.setattr(parquet_images, "MOST_OF_A_GROUP", 50)
    with pytest.raises(DataError, match=r"row group with 0\.0 GiB of images, .* `row_group_size=100`"):
        read_huggingface(str(tmp_path / "huge"), Wanted())


@pytest.mark.parametrize("name", ["/nowhere/at/all", "a/b/c", "..", "", "a b", "x" * 3000, "https://x", "~/x"])
def test_what_is_neither_a_folder_nor_a_name_is_refused_without_a_network(name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_huggingface(name, Wanted())
    assert is_a_sentence(str(caught.value))


def refusal_of(root: Path) -> str:
    """What is said of a dataset or of one of its images; empty if all can be read."""
    try:
        source = read_huggingface(str(root), NOISY)
        for origin in source.splits["noisy_train"].origins:
            source.encoded(origin)
    except DataError as error:
        return str(error)
    return ""


def test_any_damage_ends_in_a_sentence_or_in_other_images(hub: Path) -> None:
    rng = random.Random(1)
    path = hub / "data" / SHARD
    whole = path.read_bytes()
    refusals: list[str] = []
    for attempt in range(150):
        data = bytearray(whole)
        if attempt % 3:
            first = len(data) - 1500 if attempt % 3 == 1 else 0  # most of what is not an image is at the end
            for place in rng.sample(range(max(0, first), len(data)), rng.choice([1, 8])):
                data[place] = rng.randrange(256)
        else:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        refusals += [said] if (said := refusal_of(hub)) else []
    assert len(refusals) > 75
    assert all(map(is_a_sentence, refusals))


def test_a_file_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.parquet").touch()
    with pytest.raises(DataError, match=r"^'train\.parquet' is a file; it must be a folder of parquet files"):
        read_huggingface("train.parquet", NOISY)
