"""Parquet files as the Hugging Face hub has them become a release, whatever is in them."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError
from data.release import Release, open_release
from data.sources import parquet_images
from data.sources.hub_files import Wanted
from data.sources.huggingface import read_huggingface
from data.sources.source import Source
from data.sources.writing import LEFT_OUT, write_source
from tests.data.parquet_files import CLASSES, picture, pictures, write, write_hub

NOISY = Wanted(label="noisy", true_label="label")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return write_hub(tmp_path / "hub")


def imported(root: Path, out: Path, wanted: Wanted) -> Release:
    write_source(read_huggingface(str(root), wanted), out)
    return open_release(out)


def contents(release: Release, name: str) -> dict[bytes, tuple[int, int]]:
    """Label and true label by the image file."""
    split = release.split(name)
    rows = zip(split.keys, split.labels.tolist(), split.true.tolist(), strict=True)
    return {release.store.encoded(key): (label, true) for key, label, true in rows}


def file_of(number: int) -> bytes:
    return picture(number, "JPEG" if number % 2 else "PNG")


@pytest.mark.parametrize("out", ["out", "out.pack"])
def test_every_image_arrives_byte_for_byte_with_its_labels(hub: Path, tmp_path: Path, out: str) -> None:
    release = imported(hub, tmp_path / out, NOISY)
    assert release.class_names == ("cat", "dog", "owl")
    train = {0: (0, 0), 1: (1, 1), 2: (2, 2), 3: (0, 0), 4: (2, 1), 5: (0, 2)}
    assert contents(release, "noisy_train") == {file_of(n): labels for n, labels in train.items()}
    assert contents(release, "clean_val") == {file_of(6): (0, 0), file_of(7): (1, 1)}
    assert contents(release, "clean_test") == {file_of(8): (2, 2), file_of(9): (0, 0), file_of(10): (1, 1)}
    assert not release.has("clean_train")
    _, clean, noisy = release.double_labelled()
    assert sorted(zip(clean.tolist(), noisy.tolist(), strict=True)) == [(0, 2), (1, 1)]  # of validation
    originals = (tmp_path / ("out.pack.originals.tsv" if out.endswith("pack") else "out/originals.tsv")).read_text()
    assert "\tdata/train-00001-of-00002.parquet:1\n" in originals
    assert len(originals.splitlines()) == 11


def test_without_true_labels_nobody_knows_them(hub: Path, tmp_path: Path) -> None:
    release = imported(hub, tmp_path / "out", Wanted(label="label", val=""))
    assert contents(release, "noisy_train") == {file_of(n): (n % 3, -1) for n in range(6)}
    assert contents(release, "clean_test").keys() == {file_of(8), file_of(9), file_of(10)}
    assert not release.has("clean_val")
    assert len(release.double_labelled()[0]) == 0


def test_files_of_the_library_itself_are_read(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    values = {"image": [{"bytes": picture(number)} for number in range(4)], "label": [1, 0, 0, 1]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(values, features=features).to_parquet(str(tmp_path / "hub" / "train.parquet"))
    release = imported(tmp_path / "hub", tmp_path / "out", Wanted())
    assert release.class_names == ("no", "yes")
    assert contents(release, "noisy_train") == {picture(n): (label, -1) for n, label in enumerate([1, 0, 0, 1])}


def test_a_name_is_prepared_once_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    for number, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        path = tmp_path / "photos" / name / f"{number}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(number))
    asked = []
    real = datasets.load_dataset_builder

    def from_here(name: str, config: str | None, revision: str | None) -> Any:
        asked.append((name, config, revision))
        return real("imagefolder", data_dir=str(tmp_path / "photos"), cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset_builder", from_here)
    wanted = Wanted(config="full", revision="v1")
    release = imported(Path("owner/photos"), tmp_path / "out", wanted)
    assert asked == [("owner/photos", "full", "v1")]
    assert release.class_names == ("a", "b")
    assert contents(release, "noisy_train") == {picture(0): (0, -1), picture(1): (1, -1)}
    assert contents(release, "clean_test") == {picture(2): (0, 0), picture(3): (1, 1)}
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert read_huggingface("owner/photos", wanted).identity
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")} == files

    def fails(*args: object, **kwargs: object) -> Any:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset_builder", fails)
    with pytest.raises(DataError, match=r"cannot be had from the Hugging Face hub \(ConnectionError: no \| network\)"):
        read_huggingface("owner/photos", Wanted())


def test_without_the_packages_a_sentence_names_the_line_of_pip(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert read_huggingface(str(hub), NOISY).class_names  # a folder needs no library
    with pytest.raises(DataError, match="needs the package datasets; install it: `pip install datasets`"):
        read_huggingface("owner/photos", Wanted())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"needs the package pyarrow, .* install it: `pip install datasets`"):
        read_huggingface(str(hub), NOISY)


@pytest.mark.parametrize(
    ("values", "classes", "names", "labels"),
    [
        (["owl", "cat", "owl", None], None, ("cat", "owl"), [1, 0, 1]),
        ([10, 2, 10, -1], None, ("2", "10"), [1, 0, 1]),
        ([10, 2, 10, None], None, ("2", "10"), [1, 0, 1]),
        ([1, 0, 1, -1], {"label": ["b", "a"]}, ("b", "a"), [1, 0, 1]),
    ],
)
def test_labels_may_be_texts_or_numbers_and_some_may_be_unknown(
    tmp_path: Path, values: list[Any], classes: Any, names: tuple[str, ...], labels: list[int]
) -> None:
    path = write(tmp_path / "hub" / "train.parquet", {"image": pictures(range(4)), "label": values}, classes)
    release = imported(path.parent, tmp_path / "out", Wanted())
    assert release.class_names == names
    assert contents(release, "noisy_train") == {file_of(n): (label, -1) for n, label in enumerate(labels)}
    assert (tmp_path / "out" / LEFT_OUT).read_text() == f"no label\t{path}:3\n"


def test_dictionaries_of_texts_and_bare_bytes_are_read_as_well(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"png": [picture(0), picture(1)], "label": ["b", "a"]}
    types = {"label": pa.dictionary(pa.int32(), pa.string())}
    write(tmp_path / "hub" / "train.parquet", columns, types=types)
    release = imported(tmp_path / "hub", tmp_path / "out", Wanted())
    assert contents(release, "noisy_train") == {picture(0): (1, -1), picture(1): (0, -1)}


def test_images_beside_the_files_are_read_and_missing_ones_are_named(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").write_bytes(picture(7))
    images = [{"bytes": None, "path": "images/a.png"}, None, {"bytes": None, "path": None}, *pictures([3])]
    write(root / "train.parquet", {"image": images, "label": [0, 1, 1, 1]}, {"label": ["x", "y"]}, row_group_size=3)
    release = imported(root, tmp_path / "out", Wanted())
    assert contents(release, "noisy_train") == {picture(7): (0, -1), file_of(3): (1, -1)}
    left = (tmp_path / "out" / LEFT_OUT).read_text()
    assert left == f"no image\t{root / 'train.parquet'}:1\nno image\t{root / 'train.parquet'}:2\n"


def test_row_groups_are_read_about_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = range(2400)
    for shard in range(2):
        mine = rows[shard * 1200 : (shard + 1) * 1200]
        columns: dict[str, Any] = {"image": pictures(mine), "label": [n % 3 for n in mine]}
        write(tmp_path / "hub" / f"train-{shard:05}-of-00002.parquet", columns, CLASSES)
    reads: Counter[tuple[str, int]] = Counter()
    read = parquet_images.Images._read
    monkeypatch.setattr(
        parquet_images.Images,
        "_read",
        lambda self, shard, group: (reads.update([(shard.name, group)]), read(self, shard, group))[1],
    )
    one_group = sum(len(file_of(n)) for n in range(100))
    monkeypatch.setattr(parquet_images, "CACHE", 3 * one_group)
    source = read_huggingface(str(tmp_path / "hub"), Wanted())
    reads.clear()
    listed = source.splits["noisy_train"]
    for origin in [origin for _, origin in sorted(zip(listed.keys, listed.origins, strict=True))]:
        number = int(origin.rpartition(":")[2]) + 1200 * ("-00001-" in origin)
        assert source.encoded(origin) == file_of(number)
    assert len(reads) == 24
    assert reads.total() < 30
    assert len({int(key[:-4].rpartition(",")[2]) for key in listed.keys} & set(rows)) == 2400  # numbered from 0


def test_keys_are_those_of_the_contents_and_no_two_datasets_share_any(hub: Path, tmp_path: Path) -> None:
    def keys(source: Source) -> set[str]:
        return {key for listed in source.splits.values() for key in listed.keys}

    first = read_huggingface(str(hub), NOISY)
    numbers = sorted(int(key[:-4].rpartition(",")[2]) for key in keys(first))
    assert numbers == list(range(11))
    hub.rename(tmp_path / "elsewhere")
    assert (
        read_huggingface(str(tmp_path / "elsewhere"), NOISY).splits["noisy_train"].keys
        == first.splits["noisy_train"].keys
    )
    for images, labels in (([8, 9, 11], [2, 0, 1]), ([8, 9, 10], [2, 0, 0])):
        changed: dict[str, Any] = {"image": pictures(images), "label": labels}
        write(tmp_path / "elsewhere/data/test-00000-of-00001.parquet", changed, CLASSES)
        assert not keys(read_huggingface(str(tmp_path / "elsewhere"), NOISY)) & keys(first)


def test_groups_are_kept(tmp_path: Path) -> None:
    writers = ["w10", "w9", None, "w10"]
    write(
        tmp_path / "hub" / "train.parquet",
        {"image": pictures(range(4)), "label": [0, 1, 2, 0], "writer": writers},
        CLASSES,
    )
    write(tmp_path / "hub" / "test.parquet", {"image": pictures([4, 5]), "label": [0, 1]}, CLASSES)
    for out in ("out", "out.pack"):
        release = imported(tmp_path / "hub", tmp_path / out, Wanted(label="label", group="writer"))
        assert release.group_names == ("w10", "w9")
        split = release.split("noisy_train")
        assert split.groups is not None
        found = {
            release.store.encoded(key): group for key, group in zip(split.keys, split.groups.tolist(), strict=True)
        }
        assert found == {file_of(0): 0, file_of(1): 1, file_of(2): -1, file_of(3): 0}
        assert release.split("clean_test").groups is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00001.parquet", "train"), ("data/test-00003-of-00010.parquet", "test"),
        ("default/train/0000.parquet", "train"), ("cifar10-train.parquet", "train"), ("train_2.parquet", "train"),
        ("cifar10-validation-00000-of-00002.parquet", "validation"), ("test/part-0.parquet", "test"),
        ("train.parquet", "train"), ("train/part-00000-of-00002.parquet", "train"), ("data/fold_a.parquet", "fold_a"),
    ],
)  # fmt: skip
def test_names_say_which_split_a_file_belongs_to(tmp_path: Path, name: str, split: str) -> None:
    write(tmp_path / name, {"image": pictures([0, 1]), "label": [0, 1]}, CLASSES)
    write(tmp_path / Path(name).with_name("other.parquet"), {"image": pictures([2]), "label": [0]}, CLASSES)
    source = read_huggingface(str(tmp_path), Wanted(train=split, test="", val=""))
    assert list(source.splits["noisy_train"].origins) == [f"{name}:0", f"{name}:1"]


def test_the_command_imports_and_shows(hub: Path, tmp_path: Path) -> None:
    line = [
        "import",
        "huggingface",
        str(hub),
        "--out",
        str(tmp_path / "out"),
        "--label",
        "noisy",
        "--true-label",
        "label",
    ]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "6 noisy_train, 2 clean_val, 3 clean_test images." in done.output
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "out")])
    assert "6 images of noisy train have a known true label; 66.7% of their noisy labels are right." in shown.output
    with Image.open(
        tmp_path / "out" / next(iter(open_release(tmp_path / "out").split("clean_test").keys)).decode()
    ) as image:
        assert image.size == (16, 16)
    assert np.array_equal(open_release(tmp_path / "out").index.counts, [6, 0, 2, 3])
