"""People's labels of CIFAR's images, and what is refused so that no image gets another one's label."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import DataError
from data.release import open_release
from data.sources.cifar import Options, read_cifar
from data.sources.cifar_files import CIFAR10, CIFAR100, Kind
from data.sources.writing import write_source
from tests.data import made_cifar as made
from tests.data.hostile_pickles import hostile

FIELDS10 = ["aggre_label", "worse_label", "random_label1", "random_label2", "random_label3"]


def labels10(**changes: Any) -> dict[str, Any]:
    """What the authors' file holds, of 50 images; `changes` replaces arrays, None leaves them out."""
    clean = made.train_labels()
    found: dict[str, Any] = {"clean_label": clean}
    for number, field in enumerate(FIELDS10, 1):
        found[field] = np.where(np.arange(50) % 10 < number, (clean + number) % 10, clean)
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def saved(top: Path, value: Any, as_zip: bool = True, name: str = "CIFAR-10_human.pt") -> Path:
    torch.save(value, top / name, _use_new_zipfile_serialization=as_zip)
    return top / name


def sentence(source: Path, path: Path, labels: str = "worse", kind: Kind = CIFAR10, **wanted: Any) -> str:
    with pytest.raises(DataError) as error:
        read_cifar(source, kind, Options(human_labels=(path, labels), **wanted))
    said = str(error.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.cifar10_python(tmp_path_factory.mktemp("cifar"))


SETS = {"aggre": 1, "worse": 2, "random1": 3, "random2": 4, "random3": 5, "clean": 0}


@pytest.mark.parametrize("labels", SETS)
@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("as_tensors", [True, False])
def test_noisy_labels_are_peoples_and_true_ones_cifars(
    labels: str, as_zip: bool, as_tensors: bool, tiny: Path, tmp_path: Path
) -> None:
    value = labels10()
    if as_tensors:
        value = {name: torch.from_numpy(array) for name, array in value.items()}
    path = saved(tmp_path, value, as_zip)
    train = read_cifar(tiny, CIFAR10, Options(human_labels=(path, labels))).splits["noisy_train"]
    clean = made.train_labels()
    shift = SETS[labels]  # as `labels10` says: so many of each ten are wrong, by so much
    assert np.array_equal(train.true, clean)
    assert np.array_equal(train.noisy, [(c + shift) % 10 if n % 10 < shift else c for n, c in enumerate(clean)])
    assert (train.noisy != train.true).mean() == shift / 10


def test_clean_lists_keep_the_human_label_beside_the_true_one(tiny: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, labels10())
    source = read_cifar(tiny, CIFAR10, Options(clean_val=10, human_labels=(path, "random3")))
    write_source(source, tmp_path / "release")
    release = open_release(tmp_path / "release")
    given = dict(zip(source.splits["clean_val"].origins, source.splits["clean_val"].noisy.tolist(), strict=True))
    for origin, noisy in given.items():
        batch, _, row = origin.partition(":")
        assert noisy == labels10()["random_label3"][10 * (int(batch[-1]) - 1) + int(row)]
    assert source.splits["clean_test"].noisy.tolist() == [-1] * 10
    keys, clean, noisy = release.double_labelled()
    assert len(keys) == 10
    lines = (tmp_path / "release" / "true_label_kv.txt").read_text(encoding="utf-8").splitlines()
    true = {key.encode(): int(label) for key, label in map(str.split, lines)}
    split = release.split("noisy_train")
    assert len(split.keys) == 40
    wrong = [true[key] != label for key, label in zip(split.keys.tolist(), split.labels.tolist(), strict=True)]
    assert sum(wrong) + int((noisy != clean).sum()) == 25  # half of all


def test_another_order_is_refused(tiny: Path, tmp_path: Path) -> None:
    clean = made.train_labels()
    other = clean.copy()
    other[[3, 4]] = other[[4, 3]]
    assert other[3] != other[4]
    said = sentence(tiny, saved(tmp_path, labels10(clean_label=other)))
    assert f"is in another order than the images of {tiny}: 2 of 50 labels in its clean_label are not those" in said
    said = sentence(tiny, saved(tmp_path, labels10(clean_label=clean[::-1])))
    assert "CIFAR-10_human.pt is in another order than the images of " in said


def test_the_binary_form_needs_the_same_order(tmp_path: Path) -> None:
    path, folder = saved(tmp_path, labels10()), made.cifar10_binary(tmp_path)
    same = read_cifar(folder, CIFAR10, Options(human_labels=(path, "worse"))).splits["noisy_train"]
    assert same.noisy.tolist() == labels10()["worse_label"].tolist()
    one, two = folder / "data_batch_1.bin", folder / "data_batch_2.bin"
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert f"is in another order than the images of {folder}: " in sentence(folder, path)


def test_files_of_tensorflow_are_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "CIFAR-10_human_ordered.npy"
    np.save(path, np.array(labels10(), dtype=object), allow_pickle=True)
    assert (
        sentence(tiny, path)
        == f"{path} is no CIFAR-10_human.pt; .npy files have the labels in another order of images."
    )
    renamed = path.rename(tmp_path / "CIFAR-10_human.pt")
    assert sentence(tiny, renamed).startswith(f"{renamed} is not a file that torch.save has written; it must be")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"worse_label": None}, "has no worse_label, only 'aggre_label', 'clean_label', 'random_label1', "),
        ({"clean_label": None}, "has no clean_label, only "),
        ({"worse_label": np.zeros(49, int)}, "has 49 labels in worse_label, but there are 50 training images."),
        ({"worse_label": np.full(50, 10)}, "has labels in worse_label that are not from 0 to 9."),
        ({"worse_label": np.full(50, -1)}, "has labels in worse_label that are not from 0 to 9."),
        ({"worse_label": np.zeros(50)}, "has a worse_label that is not one row of whole numbers."),
        ({"worse_label": np.zeros((50, 1), int)}, "has a worse_label that is not one row of whole numbers."),
        ({"worse_label": "0" * 50}, "has a worse_label that is not one row of whole numbers."),
        ({"worse_label": [0.5] * 50}, "has a worse_label that is not one row of whole numbers."),
        ({"worse_label": np.array([None] * 50)}, "has an array of type 'O8', not of numbers; it must be"),
    ],
)
def test_malformed_files_are_refused(changes: dict[str, Any], said: str, tiny: Path, tmp_path: Path) -> None:
    assert said in sentence(tiny, saved(tmp_path, labels10(**changes)))


def test_lists_are_read_too(tiny: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, labels10(worse_label=[7] * 50))
    source = read_cifar(tiny, CIFAR10, Options(human_labels=(path, "worse")))
    assert source.splits["noisy_train"].noisy.tolist() == [7] * 50


def test_other_contents_are_refused(tiny: Path, tmp_path: Path) -> None:
    assert "holds no dict of labels; it must be CIFAR-10_human.pt." in sentence(tiny, saved(tmp_path, [1]))
    assert "has no clean_label, only nothing; it must be" in sentence(tiny, saved(tmp_path, {}))
    path = tmp_path / "CIFAR-10_human.pt"
    path.write_bytes(pickle.dumps(labels10(), 2))
    assert "is not a file that torch.save has written; it must be" in sentence(tiny, path)
    assert "is missing; it must be a file as published." in sentence(tiny, tmp_path / "nowhere.pt")


@pytest.mark.parametrize("case", ["os.system 2", "os.system 4", "eval", "subprocess"])
@pytest.mark.parametrize("wrap", [made.zipped, made.in_a_row])
def test_a_hostile_file_is_refused_and_nothing_runs(case: str, wrap: Any, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "CIFAR-10_human.pt"
    path.write_bytes(wrap(hostile(tmp_path / "mark")[case]))
    said = sentence(tiny, path)
    assert said.startswith(f"{path} asks for '")
    assert "', which was not run; it must be as published" in said
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("kind", "labels", "coarse", "said"),
    [
        (
            CIFAR10,
            "",
            False,
            "--labels is missing; with --human-labels it must be one of aggre, random1, random2, random3",
        ),
        (CIFAR10, "noisy", False, "--labels is 'noisy'; with --human-labels it must be one of aggre, random1, random2"),
        (CIFAR100, "worse", False, "--labels is 'worse'; with --human-labels it must be one of noisy, coarse, clean."),
        (CIFAR100, "coarse", False, "--labels coarse needs --coarse."),
        (CIFAR100, "noisy", True, "--labels noisy is of the 100 classes; leave out --coarse, or give --labels coarse."),
    ],
)
def test_labels_and_classes_must_fit(kind: Kind, labels: str, coarse: bool, said: str, tmp_path: Path) -> None:
    assert said in sentence(tmp_path, tmp_path / "nowhere.pt", labels, kind, coarse=coarse)


@pytest.mark.parametrize("labels", ["noisy", "coarse", "clean"])
def test_cifar100n(labels: str, tmp_path: Path) -> None:
    fine = np.array(made.labels_of("train", 200, 100))
    value = {"clean_label": fine, "noisy_label": (fine + 3) % 100, "noisy_coarse_label": (fine + 1) % 20}
    path = saved(tmp_path, value, name="CIFAR-100_human.pt")
    for folder in (made.cifar100_python(tmp_path), made.cifar100_binary(tmp_path)):
        wanted = Options(coarse=labels == "coarse", human_labels=(path, labels))
        train = read_cifar(folder, CIFAR100, wanted).splits["noisy_train"]
        true = fine % 20 if labels == "coarse" else fine
        noisy = {"noisy": (fine + 3) % 100, "coarse": (fine + 1) % 20, "clean": fine}[labels]
        assert np.array_equal(train.true, true)
        assert np.array_equal(train.noisy, noisy)
    path = saved(tmp_path, {**value, "noisy_coarse_label": np.full(200, 20)}, name="CIFAR-100_human.pt")
    said = sentence(tmp_path / "cifar-100-python", path, "coarse", CIFAR100, coarse=True)
    assert "has labels in noisy_coarse_label that are not from 0 to 19." in said
