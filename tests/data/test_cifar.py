"""CIFAR-10 and CIFAR-100 in their published forms, on miniatures that are written here byte by byte."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.data.cifar import as_python2
from data.errors import DataError
from data.images.decode import decode
from data.images.loading import load_images
from data.release import open_release
from data.sources.cifar import Options, read_cifar, remark_on_size
from data.sources.cifar_files import CIFAR10, CIFAR100
from data.sources.source import Source
from data.sources.writing import write_source
from tests.data import made_cifar as made
from tests.data.hostile_pickles import hostile
from tests.fakes import rounds_of, run_in_process

Maker = Callable[[Path], Path]


def forms10() -> dict[str, Maker]:
    """Ways to have CIFAR-10: each makes it below a folder, and returns what to import."""
    return {
        "python": made.cifar10_python,
        "above python": lambda top: made.cifar10_python(top).parent,
        "python, archive": lambda top: made.archived(made.cifar10_python(top / "x"), top / "downloaded.tar.gz"),
        "python, archive beside nothing": lambda top: (
            made.archived(made.cifar10_python(top / "x"), top / "cifar-10-python.tar.gz").parent
        ),
        "python, another prefix": lambda top: made.archived(made.cifar10_python(top), top / "a.tgz", "./a/b/c"),
        "python, unpacked to a tar": lambda top: made.archived(made.cifar10_python(top), top / "a.tar", mode="w"),
        "binary": made.cifar10_binary,
        "above binary": lambda top: made.cifar10_binary(top).parent,
        "binary, archive": lambda top: made.archived(made.cifar10_binary(top), top / "cifar-10-binary.tar.gz"),
    }


def sentence(source: Path, kind: Any = CIFAR10, **wanted: Any) -> str:
    with pytest.raises(DataError) as error:
        read_cifar(source, kind, Options(**wanted))
    said = str(error.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


def pixels_of(raw: np.ndarray) -> np.ndarray:
    """(3072,) as (32, 32, 3), one value at a time: red, green and blue follow each other, in rows of 32."""
    out = np.zeros((32, 32, 3), np.uint8)
    for channel in range(3):
        for row in range(32):
            out[row, :, channel] = raw[1024 * channel + 32 * row : 1024 * channel + 32 * row + 32]
    return out


def contents(source: Source) -> dict[str, dict[str, tuple[int, int]]]:
    """By list and origin: both labels."""
    return {
        name: dict(zip(one.origins, zip(one.true.tolist(), one.noisy.tolist(), strict=True), strict=True))
        for name, one in source.splits.items()
    }


@pytest.mark.parametrize("form", forms10())
def test_every_form_gives_the_same_images_and_labels(form: str, tmp_path: Path) -> None:
    source = read_cifar(forms10()[form](tmp_path), CIFAR10)
    suffix = ".bin" * ("binary" in form)
    assert source.class_names == tuple(name.decode() for name in made.NAMES10)
    assert source.side == 32
    assert not source.own
    train = {
        f"{name}{suffix}:{row}": (label, label)
        for name in made.BATCHES
        for row, label in enumerate(made.labels_of(name, 10, 10))
    }
    test = {f"test_batch{suffix}:{row}": (label, -1) for row, label in enumerate(made.labels_of("test_batch", 10, 10))}
    assert contents(source) == {"noisy_train": train, "clean_test": test}
    for name, row in (("data_batch_1", 0), ("data_batch_5", 9), ("test_batch", 4)):
        assert np.array_equal(decode(source.encoded(f"{name}{suffix}:{row}")), pixels_of(made.raw_of(name, 10)[row]))
    assert str(source.place("data_batch_1:17")).endswith("data_batch_1:17")
    keys = [key for one in source.splits.values() for key in one.keys]
    assert len(set(keys)) == 60
    assert sorted(int(key.rpartition(",")[2].removesuffix(".jpg")) for key in keys) == list(range(60))


@pytest.mark.parametrize("form", ["python", "binary", "python archive", "binary archive"])
@pytest.mark.parametrize("coarse", [False, True])
def test_cifar100_has_fine_and_coarse_labels(form: str, coarse: bool, tmp_path: Path) -> None:
    folder = (made.cifar100_python if "python" in form else made.cifar100_binary)(tmp_path)
    place = made.archived(folder, tmp_path / "a.tar.gz") if "archive" in form else folder
    source = read_cifar(place, CIFAR100, Options(coarse=coarse))
    names = made.COARSE if coarse else made.FINE
    assert source.class_names == tuple(name.decode() for name in names)
    for split, name, count in (("noisy_train", "train", 200), ("clean_test", "test", 40)):
        fine = np.array(made.labels_of(name, count, 100))
        assert np.array_equal(source.splits[split].true, fine % 20 if coarse else fine)
        origin = source.splits[split].origins[count - 1]
        assert origin == f"{name}{'.bin' * ('binary' in form)}:{count - 1}"
        assert np.array_equal(decode(source.encoded(origin)), pixels_of(made.raw_of(name, count)[-1]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.cifar10_python(tmp_path_factory.mktemp("cifar"))


def test_folder_and_pack_hold_the_very_pixels(tiny: Path, tmp_path: Path) -> None:
    source = read_cifar(tiny, CIFAR10, Options(clean_train=10, clean_val=5))
    for out in (tmp_path / "release", tmp_path / "cifar10.pack"):
        done = write_source(source, out)
        assert done.counts == {"noisy_train": 35, "clean_train": 10, "clean_val": 5, "clean_test": 10}
        release = open_release(out)
        assert release.class_names == source.class_names
        for name in done.counts:
            one = source.splits[name]
            by_key = {key.encode(): row for row, key in enumerate(one.keys)}
            split = release.split(name)
            assert set(split.keys.tolist()) == by_key.keys()
            pixels = load_images(release, split.keys, 32)
            for key, label, picture in zip(split.keys.tolist(), split.labels.tolist(), pixels, strict=True):
                batch, _, row = one.origins[by_key[key]].partition(":")
                assert np.array_equal(picture, pixels_of(made.raw_of(batch, 10)[int(row)]))
                assert label == made.labels_of(batch, 10, 10)[int(row)]
    lines = (tmp_path / "release" / "originals.tsv").read_text(encoding="utf-8")
    assert lines == (tmp_path / "cifar10.pack.originals.tsv").read_text(encoding="utf-8")
    assert lines.count("\tdata_batch_3:") == 10


class KillError(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("name", ["release", "cifar10.pack"])
def test_an_interrupted_import_goes_on(name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.sources.writing.CHUNK", 8)
    monkeypatch.setattr("data.pack_writer.CHUNK", 8)
    monkeypatch.setattr("data.pack_writer.SYNC_SECONDS", 0.0)
    source = read_cifar(tiny, CIFAR10)
    asked: list[str] = []

    def counted(origin: str) -> bytes:
        asked.append(origin)
        if len(asked) == 40:
            raise KillError
        return source.encoded(origin)

    with pytest.raises(KillError):
        write_source(replace(source, encoded=counted), tmp_path / name, threads=1)
    assert not (tmp_path / name).exists()
    write_source(replace(source, encoded=counted), tmp_path / name, threads=1)
    assert 60 < len(asked) < 100
    write_source(source, tmp_path / "undisturbed" / name)

    def files(top: Path) -> Mapping[Path, bytes]:
        whole = top.rglob("*") if top.is_dir() else [top]
        return {path.relative_to(top): path.read_bytes() for path in whole if path.is_file()}

    assert files(tmp_path / name) == files(tmp_path / "undisturbed" / name)


def test_a_run_trains_from_it(tiny: Path, tmp_path: Path) -> None:
    write_source(read_cifar(tiny, CIFAR10, Options(clean_val=10)), tmp_path / "cifar10.pack")
    run = run_in_process(
        tmp_path / "runs", 2, data_dir=str(tmp_path / "cifar10.pack"), model="cnn", image_size=32, fraction_train=1.0
    )
    lines = rounds_of(run)
    assert [line["round"] for line in lines][-2:] == [1, 2]
    assert all(np.isfinite(line["train-loss"]) for line in lines[-2:])


def test_clean_lists_are_taken_out_of_training(tiny: Path) -> None:
    source = read_cifar(tiny, CIFAR10, Options(clean_train=20, clean_val=13))
    lists = contents(source)
    assert {name: len(one) for name, one in lists.items()} == {
        "noisy_train": 17, "clean_train": 20, "clean_val": 13, "clean_test": 10
    }  # fmt: skip
    assert len(set().union(*lists.values())) == 60
    assert np.bincount(source.splits["clean_train"].true).tolist() == [2] * 10
    assert sorted(np.bincount(source.splits["clean_val"].true).tolist()) == [1] * 7 + [2] * 3
    for name in ("clean_train", "clean_val"):
        for origin, (true, noisy) in lists[name].items():
            batch, _, row = origin.partition(":")
            assert (true, noisy) == (made.labels_of(batch, 10, 10)[int(row)], -1)
    again = contents(read_cifar(tiny, CIFAR10, Options(clean_train=20, clean_val=13)))
    other = contents(read_cifar(tiny, CIFAR10, Options(clean_train=20, clean_val=13, seed=2)))
    assert again == lists
    assert other["clean_val"].keys() != lists["clean_val"].keys()
    keys = {name: dict(zip(one.origins, one.keys, strict=True)) for name, one in source.splits.items()}
    whole = read_cifar(tiny, CIFAR10).splits["noisy_train"]
    assert dict(zip(whole.origins, whole.keys, strict=True)) == {
        **keys["noisy_train"], **keys["clean_train"], **keys["clean_val"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"clean_val": 50}, "--val is 50; it must be at least 0 and below 50, the training images."),
        ({"clean_train": -1}, "--clean-train is -1; it must be at least 0 and below 50, the training images."),
        ({"clean_train": 20, "clean_val": 30}, "--val is 30, which takes 3 of the 3 images left of class 0; noisy"),
        ({"seed": -1}, "--seed is -1; it must be at least 0."),
    ],
)
def test_bad_counts_are_refused(tiny: Path, wanted: dict[str, int], said: str) -> None:
    assert said in sentence(tiny, **wanted)


def test_a_smaller_dataset_is_remarked_on(tiny: Path) -> None:
    source = read_cifar(tiny, CIFAR10)
    assert remark_on_size(source, CIFAR10) == f"{tiny} has 60 images; CIFAR-10 as published has 60,000."


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "an image short": ({"data": made.raw_of("x", 9)}, "has 9 images and 10 of 'labels'"),
    "a label short": ({"labels": [1] * 9}, "has 10 images and 9 of 'labels'"),
    "cut off in both": (
        {"data": made.raw_of("x", 9), "labels": [1] * 9},
        "has 9 images and test_batch has 10; it must have as many, and 10,000 as published",
    ),
    "another class": ({"labels": [1] * 9 + [10]}, ", image 9: its label is 10, not from 0 to 9"),
    "a negative label": ({"labels": [-1] + [1] * 9}, ", image 0: its label is -1, not from 0 to 9"),
    "labels as texts": ({"labels": [b"1"] * 10}, "has no list of numbers called 'labels'"),
    "no labels": ({"labels": None}, "has no list of numbers called 'labels'"),
    "labels of CIFAR-100": ({"labels": None, "fine_labels": [1] * 10}, "has no list of numbers called 'labels'"),
    "no data": ({"data": None}, "has no 'data' of images with 3072 bytes each"),
    "data as a text": ({"data": b"x" * 30720}, "has no 'data' of images with 3072 bytes each"),
    "another side": ({"data": np.zeros((10, 784), np.uint8)}, "has no 'data' of images with 3072 bytes each"),
    "another form": ({"data": np.zeros((10, 32, 32, 3), np.uint8)}, "has no 'data' of images with 3072 bytes each"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_malformed_batches_are_refused(change: str, tmp_path: Path) -> None:
    folder = made.cifar10_python(tmp_path)
    changes, said = CHANGES[change]
    (folder / "data_batch_3").write_bytes(made.batch10("data_batch_3", **changes))
    assert sentence(folder).startswith(f"{folder / 'data_batch_3'}")
    assert said in sentence(folder)


def test_no_images_at_all_are_refused(tmp_path: Path) -> None:
    assert "has no image; it must be as published" in sentence(made.cifar10_python(tmp_path, count=0))
    assert "has no image; it must be as published" in sentence(made.cifar10_binary(tmp_path, count=0))


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (as_python2({b"label_names": made.NAMES10[:9]}), "has names of 9 classes; it must have 10."),
        (as_python2({b"label_names": b"airplane"}), "has names of 0 classes; it must have 10."),
        (as_python2({}), "has names of 0 classes; it must have 10."),
        (b"\x80\x02].", "holds no dict; it must be as published."),
        (b"airplane\nautomobile\n", "it must be as published"),
    ],
)
def test_malformed_names_are_refused(meta: bytes, said: str, tmp_path: Path) -> None:
    folder = made.cifar10_python(tmp_path)
    (folder / "batches.meta").write_bytes(meta)
    assert sentence(folder).startswith(f"{folder / 'batches.meta'} ")
    assert said in sentence(folder)


@pytest.mark.parametrize("case", ["os.system 2", "eval", "numpy.load", "BUILD of a name"])
@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("in_archive", [False, True])
def test_a_hostile_file_is_refused_and_nothing_runs(case: str, file: str, in_archive: bool, tmp_path: Path) -> None:
    folder = made.cifar10_python(tmp_path)
    (folder / file).write_bytes(hostile(tmp_path / "mark")[case])
    place = made.archived(folder, tmp_path / "cifar-10-python.tar.gz") if in_archive else folder
    assert sentence(place).startswith(f"{place / file} ")
    assert not (tmp_path / "mark").exists()


def test_binary_files_are_whole_records(tmp_path: Path) -> None:
    folder = made.cifar10_binary(tmp_path)
    file = folder / "data_batch_4.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    assert f"{file} has 30,729 bytes, which are no whole number of records of 3,073." in sentence(folder)
    file.write_bytes(data[:-3073])
    assert f"{file} has 9 images and test_batch.bin has 10; it must have as many" in sentence(folder)
    file.write_bytes(b"\x0a" + data[1:])
    assert f"{file}, image 0: its label is 10, not from 0 to 9." in sentence(folder)


def test_cifar100_has_five_times_as_many_for_training(tmp_path: Path) -> None:
    folder = made.cifar100_binary(tmp_path)
    file = folder / "train.bin"
    file.write_bytes(file.read_bytes()[:-3074])
    said = sentence(folder, CIFAR100)
    assert f"{file} has 199 images and test.bin has 40; it must have 5 times as many, and 50,000 as published." == said
    file.write_bytes(b"\x14" + file.read_bytes()[1:])
    assert f"{file}, image 0: its label is 20, not from 0 to 19." in sentence(folder, CIFAR100)
