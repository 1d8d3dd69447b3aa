"""ANIMAL-10N: flat folders, the label in the name, class names that stand nowhere."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError
from data.release import open_release
from data.sources.animal10n import read_animal10n
from data.sources.writing import write_source
from tests.data.made_sets import keys_of, labels_of, originals, write_animal10n, write_image
from tests.fakes import rounds_of, run_in_process


def test_labels_are_first_characters_and_files_stay_byte_for_byte(tmp_path: Path) -> None:
    folder = write_animal10n(tmp_path / "ANIMAL-10N")
    done = write_source(read_animal10n(folder), tmp_path / "out")
    assert done.counts == {"noisy_train": 20, "clean_test": 10}
    release = open_release(tmp_path / "out")
    assert release.class_names == (
        "cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig",
    )  # fmt: skip
    origins, noisy = originals(tmp_path / "out"), labels_of(tmp_path / "out", "noisy_label_kv.txt")
    assert {origin: noisy[key] for origin, key in origins.items() if origin.startswith("training/")} == {
        f"training/{number % 10}_{number}.jpg": number % 10 for number in range(20)
    }
    clean = labels_of(tmp_path / "out", "clean_label_kv.txt")
    assert clean[origins["testing/7_7.jpg"]] == 7
    assert len(noisy) == 20  # nobody gave test images a noisy label
    assert not (tmp_path / "out" / "true_label_kv.txt").exists()
    for origin, key in origins.items():
        assert (tmp_path / "out" / key).read_bytes() == (folder / origin).read_bytes()


@pytest.mark.parametrize(
    "given_folder", ["", "raw_image_ver", "raw_image_ver/raw_image", "raw_image_ver/raw_image/testing"]
)
def test_the_folder_may_be_some_levels_off(given_folder: str, tmp_path: Path) -> None:
    write_animal10n(tmp_path / "raw_image_ver" / "raw_image", 10, 10)
    source = read_animal10n(tmp_path / given_folder)
    assert source.root.resolve() == tmp_path / "raw_image_ver" / "raw_image"
    assert source.splits["noisy_train"].origins[0] == "training/0_0.jpg"
    assert (source.splits["noisy_train"].keys, source.splits["clean_test"].keys) == (
        read_animal10n(tmp_path / "raw_image_ver" / "raw_image").splits["noisy_train"].keys,
        read_animal10n(tmp_path / "raw_image_ver" / "raw_image").splits["clean_test"].keys,
    )


def test_keys_of_tests_do_not_depend_on_what_training_lacks(tmp_path: Path) -> None:
    write_animal10n(tmp_path / "whole", 20, 10)
    write_animal10n(tmp_path / "part", 13, 10)
    whole, part = (read_animal10n(tmp_path / name).splits for name in ("whole", "part"))
    assert whole["clean_test"].keys == part["clean_test"].keys
    assert whole["clean_test"].keys[0].endswith(",50000.jpg")
    assert not set(whole["clean_test"].keys) & set(whole["noisy_train"].keys)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    folder = write_animal10n(tmp_path / "ANIMAL-10N", 10, 10)
    for name in ("12_3.jpg", "x_1.jpg", "3-1.jpg", "_1.jpg", "notes.txt", "٣_1.jpg"):
        write_image(folder / "training" / name)
    write_image(folder / "training" / "._0_1.jpg")
    write_image(folder / "training" / "inner" / "0_9.jpg")
    done = write_source(read_animal10n(folder), tmp_path / "out")
    assert done.counts["noisy_train"] == 10
    assert {path.name: why for path, why in done.left_out} == {
        **dict.fromkeys(("12_3.jpg", "x_1.jpg", "3-1.jpg", "_1.jpg"), "not named as LABEL_NUMBER.jpg"),
        **dict.fromkeys(("notes.txt", "٣_1.jpg"), "not named as LABEL_NUMBER.jpg"),
        "._0_1.jpg": "hidden", "inner": "a folder",
    }  # fmt: skip
    assert len((tmp_path / "out" / "left-out.txt").read_text(encoding="utf-8").splitlines()) == 8


def test_refusals_name_what_is_missing(tmp_path: Path) -> None:
    def refused(sentence: str, folder: Path) -> None:
        with pytest.raises(DataError, match=sentence):
            read_animal10n(folder)

    refused(r"nowhere is not a folder; it must be the one that holds ANIMAL-10N\.", tmp_path / "nowhere")
    refused(r"is not a folder", tmp_path / ("x" * 300))
    (tmp_path / "empty").mkdir()
    refused(r"empty has no training; the folder of ANIMAL-10N must hold training and testing\.", tmp_path / "empty")
    (tmp_path / "half" / "training").mkdir(parents=True)
    refused(r"half has no testing; ", tmp_path / "half")
    (tmp_path / "half" / "testing").mkdir()
    refused(r"training holds no such file; it must hold the images of ANIMAL-10N as released", tmp_path / "half")
    write_image(tmp_path / "half" / "training" / "cat" / "0_1.jpg")
    refused(r"training holds only folders; ", tmp_path / "half")
    for name in ("one", "two"):
        write_animal10n(tmp_path / "twice" / name, 1, 1)
    refused(r"twice holds ANIMAL-10N twice, in .*one and .*two; give one of them\.", tmp_path / "twice")


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12))
def test_whatever_a_file_is_called_it_is_an_image_or_left_out(name: str) -> None:
    """By the rule of the form alone: a digit, an underscore, digits, a suffix of an image."""
    from data.sources.animal10n import _NAME

    stem, dot, suffix = name.rpartition(".")
    label, underscore, number = stem.partition("_")
    digits = set("0123456789")
    is_image = bool(dot and underscore and number) and len(label) == 1 and set(label + number) <= digits
    assert bool(_NAME.fullmatch(name)) == (is_image and suffix.lower() in {"jpg", "jpeg", "png"})


def test_the_command_says_if_counts_are_others_and_a_run_trains(tmp_path: Path) -> None:
    write_animal10n(tmp_path / "set", 40, 10)
    said = CliRunner().invoke(app, ["import", "animal10n", str(tmp_path / "set"), "--out", str(tmp_path / "a.pack")])
    assert said.exit_code == 0
    assert "40 noisy_train, 10 clean_test images." in said.output
    assert (
        "Note: ANIMAL-10N has 50,000 noisy_train, 5,000 clean_test; here are 40 noisy_train, 10 clean_test."
        in said.output
    )
    assert "val-split='none'" in said.output
    run = run_in_process(
        tmp_path / "runs", data_dir=str(tmp_path / "a.pack"), model="cnn", image_size=16, val_split="none", batch_size=4
    )
    lines = rounds_of(run)
    assert [line["round"] for line in lines] == [1, 2]
    assert all(0 <= line["test-accuracy"] <= 1 for line in lines)


def test_folder_and_pack_have_the_same_lists(tmp_path: Path) -> None:
    folder = write_animal10n(tmp_path / "set", 20, 10)
    write_source(read_animal10n(folder), tmp_path / "out")
    write_source(read_animal10n(folder), tmp_path / "out.pack")
    one, other = open_release(tmp_path / "out").index, open_release(tmp_path / "out.pack").index
    assert one.keys.tolist() == other.keys.tolist()
    assert (one.noisy.tolist(), one.true.tolist()) == (other.noisy.tolist(), other.true.tolist())
    assert sorted(keys_of(tmp_path / "out", "clean_test_key_list.txt")) == [
        key.decode() for key in other.keys[other.rows("clean_test")].tolist()
    ]
