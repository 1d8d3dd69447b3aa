"""Food-101N: headers, verdicts instead of true labels, tests of Food-101, lists that disagree."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.__main__ import app
from data.errors import DataError
from data.layout.finding import WRONG
from data.release import open_release
from data.sources.food101n import read_food101n
from data.sources.writing import write_source
from data.summary import summarize
from tests.data.made_sets import (
    FOOD,
    keys_of,
    labels_of,
    originals,
    sentences_of_damage,
    write_food101,
    write_food101n,
    write_lines,
)
from tests.fakes import rounds_of, run_in_process

WAFFLES, PIE, RAMEN = 2, 0, 1  # in the order of their names


@pytest.fixture
def food(tmp_path: Path) -> Path:
    return write_food101n(tmp_path / "Food-101N_release")


def listed(out: Path, split: str) -> set[str]:
    """Images of a list, by class and name."""
    keys = set(keys_of(out, f"{split}_key_list.txt"))
    return {origin.partition("images/")[2] for origin, key in originals(out).items() if key in keys}


def test_classes_are_sorted_whatever_the_order_of_their_file(food: Path, tmp_path: Path) -> None:
    """The header is no class: of `classes.txt`, and of all other files, where it would be an image."""
    write_source(read_food101n(food), tmp_path / "out")
    assert open_release(tmp_path / "out").class_names == ("apple_pie", "ramen", "waffles")
    noisy, origins = labels_of(tmp_path / "out", "noisy_label_kv.txt"), originals(tmp_path / "out")
    assert len(origins) == 16
    assert {noisy[key] for origin, key in origins.items() if "waffles" in origin} == {WAFFLES}
    assert noisy[origins["images/apple_pie/b0.jpg"]] == PIE
    for origin, key in origins.items():
        assert (tmp_path / "out" / key).read_bytes() == (food / origin).read_bytes()


def test_verdicts_become_clean_val_and_true_labels(food: Path, tmp_path: Path) -> None:
    done = write_source(read_food101n(food), tmp_path / "out")
    assert done.counts == {"noisy_train": 13, "clean_val": 3}
    assert listed(tmp_path / "out", "clean_val") == {"waffles/a4.jpg", "apple_pie/b4.jpg", "ramen/c2.jpg"}
    origins = originals(tmp_path / "out")
    clean, noisy = (labels_of(tmp_path / "out", f"{name}_label_kv.txt") for name in ("clean", "noisy"))
    pie = origins["images/apple_pie/b4.jpg"]
    assert (clean[pie], noisy[pie], len(clean)) == (PIE, PIE, 3)
    true = labels_of(tmp_path / "out", "true_label_kv.txt")
    assert {origin for origin, key in origins.items() if key in true} == {
        "images/waffles/a2.jpg", "images/apple_pie/b1.jpg", "images/apple_pie/b2.jpg",
    }  # fmt: skip
    assert all(true[key] == noisy[key] for key in true)
    wrong = set(keys_of(tmp_path / "out", "wrong_label_key_list.txt"))
    assert {origin for origin, key in origins.items() if key in wrong} == {
        "images/waffles/a3.jpg", "images/waffles/a5.jpg", "images/apple_pie/b3.jpg", "images/ramen/c3.jpg",
    }  # fmt: skip


def test_clean_train_is_moved_if_asked_for_and_keys_stay(food: Path, tmp_path: Path) -> None:
    write_source(read_food101n(food), tmp_path / "one")
    done = write_source(read_food101n(food, clean_train=True), tmp_path / "two")
    assert done.counts == {"noisy_train": 10, "clean_train": 3, "clean_val": 3}
    assert listed(tmp_path / "two", "clean_train") == {"waffles/a2.jpg", "apple_pie/b1.jpg", "apple_pie/b2.jpg"}
    assert originals(tmp_path / "one") == originals(tmp_path / "two")
    assert not (tmp_path / "two" / "true_label_kv.txt").exists()  # no label of noisy train is known to be right
    assert len(keys_of(tmp_path / "two", "wrong_label_key_list.txt")) == 4


def test_clean_test_is_food_101s_own(food: Path, tmp_path: Path) -> None:
    """Its list has no suffixes, its images no place in Food-101N's folder."""
    write_food101(tmp_path / "food-101")
    for name in ("out", "out.pack"):
        done = write_source(read_food101n(food, tmp_path / "food-101"), tmp_path / name)
        assert done.counts == {"noisy_train": 13, "clean_val": 3, "clean_test": 6}
    origins, clean = originals(tmp_path / "out"), labels_of(tmp_path / "out", "clean_label_kv.txt")
    tests = {origin: clean[key] for origin, key in origins.items() if origin.startswith("food-101/")}
    assert tests == {
        f"food-101/images/{name}/{1000 * label + number}.jpg": label
        for label, name in enumerate(("apple_pie", "ramen", "waffles"))
        for number in range(2)
    }
    for origin in tests:
        original = tmp_path / origin
        assert (tmp_path / "out" / origins[origin]).read_bytes() == original.read_bytes()
    one, other = (open_release(tmp_path / name).index for name in ("out", "out.pack"))
    assert (one.keys.tolist(), one.true.tolist()) == (other.keys.tolist(), other.true.tolist())
    assert (other.true[other.rows("noisy_train")] == WRONG).sum() == 4
    without = write_source(read_food101n(food), tmp_path / "without")
    assert "clean_test" not in without.counts


def test_a_missing_test_image_is_named_where_it_should_be(food: Path, tmp_path: Path) -> None:
    write_food101(tmp_path / "food-101")
    (tmp_path / "food-101" / "images" / "ramen" / "1001.jpg").unlink()
    done = write_source(read_food101n(food, tmp_path / "food-101"), tmp_path / "out")
    assert done.left_out == [(tmp_path / "food-101" / "images" / "ramen" / "1001.jpg", "missing or broken")]


def test_images_that_lists_have_under_different_classes_are_left_out(food: Path, tmp_path: Path) -> None:
    """z is verified as another class than it is listed as; y is another class in each verified list."""
    meta = food / "meta"
    add(meta / "imagelist.tsv", "waffles/z.jpg", "ramen/y.jpg", "waffles/y.jpg", "ramen/x.jpg")
    add(meta / "verified_train.tsv", "ramen/z.jpg\t1", "ramen/y.jpg\t1", "ramen/x.jpg\t1")
    add(meta / "verified_val.tsv", "waffles/y.jpg\t1", "ramen/x.jpg\t0", "ramen/nowhere.jpg\t1")
    source = read_food101n(food)
    assert {str(path.relative_to(food / "images")): why for path, why in source.left_out} == {
        "waffles/z.jpg": "waffles in imagelist.tsv, ramen in verified_train.tsv",
        "ramen/z.jpg": "waffles in imagelist.tsv, ramen in verified_train.tsv",
        "ramen/y.jpg": "ramen in verified_train.tsv, waffles in verified_val.tsv",
        "waffles/y.jpg": "ramen in verified_train.tsv, waffles in verified_val.tsv",
        "ramen/x.jpg": "verified as right and as wrong",
        "ramen/nowhere.jpg": "verified, but not in imagelist.tsv",
    }
    assert {name: len(one) for name, one in source.splits.items()} == {"noisy_train": 13, "clean_val": 3}
    write_source(source, tmp_path / "out")
    named = (tmp_path / "out" / "left-out.txt").read_text(encoding="utf-8")
    assert f"verified as right and as wrong\t{food / 'images' / 'ramen' / 'x.jpg'}\n" in named


def test_lists_that_disagree_about_many_images_are_refused(food: Path) -> None:
    add(food / "meta" / "verified_val.tsv", *(f"ramen/n{number}.jpg\t1" for number in range(11)))
    refused(food, r"disagree about 11 images, the first ramen/n0\.jpg: verified, but not in imagelist\.tsv\.")


def add(path: Path, *lines: str) -> None:
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in lines))


def refused(food: Path, sentence: str, food101: Path | None = None) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        read_food101n(food, food101)
    assert str(error.value).isprintable()


def test_levels_and_what_is_missing(food: Path, tmp_path: Path) -> None:
    assert read_food101n(tmp_path).root == food
    assert read_food101n(food / "meta").root.resolve() == food
    refused(tmp_path / "nowhere", r"nowhere is not a folder; it must be the one that holds Food-101N\.")
    refused(food, r"empty has no images; the folder of Food-101 must hold images and meta/test\.txt", empty(tmp_path))
    for name in ("verified_val.tsv", "classes.txt", "imagelist.tsv"):
        text = (food / "meta" / name).read_bytes()
        (food / "meta" / name).unlink()
        refused(food, rf"{name} is missing; |has no meta/{name}; ")
        (food / "meta" / name).write_bytes(text)


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir(exist_ok=True)
    return tmp_path / "empty"


def test_other_classes_than_food_101s_are_refused(food: Path, tmp_path: Path) -> None:
    one = write_food101(tmp_path / "one", ("apple_pie", "ramen", "sushi"))
    refused(food, r"has 3 classes and Food-101N has 3: 'sushi' is one of Food-101, not of Food-101N; they must be", one)
    two = write_food101(tmp_path / "two", ("apple_pie", "ramen"))
    refused(food, r"has 2 classes and Food-101N has 3: 'waffles' is one of Food-101N, not of Food-101; ", two)
    three = write_food101(tmp_path / "three")
    write_lines(
        three / "meta" / "classes.txt", ["waffles", "ramen", "apple_pie"]
    )  # of lines, the order does not matter
    write_lines(three / "meta" / "test.txt", ["apple_pie/0", "apple_pie/0", "sushi/3"])
    refused(food, r"test\.txt, line 3: 'sushi' is no class of meta/classes\.txt\.", three)


Change = Callable[[bytes], bytes]
LIST, VERIFIED = "imagelist.tsv", "verified_train.tsv"
HARMLESS: dict[str, tuple[str, Change]] = {
    "CRLF": (LIST, lambda text: text.replace(b"\n", b"\r\n")),
    "CRLF of verdicts": (VERIFIED, lambda text: text.replace(b"\n", b"\r\n")),
    "BOM": (LIST, lambda text: b"\xef\xbb\xbf" + text),
    "BOM of classes": ("classes.txt", lambda text: b"\xef\xbb\xbf" + text),
    "blank lines": (LIST, lambda text: text.replace(b"\n", b"\n\n")),
    "no last newline": (VERIFIED, lambda text: text.rstrip(b"\n")),
    "names without suffix": (LIST, lambda text: text.replace(b".jpg", b"")),
    "verdicts on names without suffix": (VERIFIED, lambda text: text.replace(b".jpg", b"")),
    "an image twice": (LIST, lambda text: text + b"ramen/c0.jpg\n"),
    "a verdict twice": (VERIFIED, lambda text: text + b"waffles/a3.jpg\t0\n"),
}


@pytest.mark.parametrize("harmless", HARMLESS)
def test_other_spellings_of_the_same_lists_make_the_same_release(food: Path, harmless: str) -> None:
    before = read_food101n(food).identity
    name, change = HARMLESS[harmless]
    text = (food / "meta" / name).read_bytes()
    (food / "meta" / name).write_bytes(change(text))
    assert change(text) != text
    assert read_food101n(food).identity == before


def without_header(text: bytes) -> bytes:
    return text.partition(b"\n")[2]


def more(line: bytes) -> Change:
    return lambda text: text + line + b"\n"


NO_IMAGE = r"line 18 is .*; it must be class/image\."
NO_VERDICT = r"line 7 is .*; it must be class/image, a tab, and 0 or 1\."
DAMAGES: dict[str, tuple[str, Change, str]] = {
    "no header of classes": ("classes.txt", without_header, r"classes\.txt, line 1 is 'waffles'; it must be a header"),
    "no header": (LIST, without_header, r"imagelist\.tsv, line 1 is 'waffles/a0\.jpg'; it must be a header"),
    "no header of verdicts": (VERIFIED, without_header, r"verified_train\.tsv, line 1 is .*; it must be a header"),
    "only a header": (LIST, lambda text: text.partition(b"\n")[0], r"imagelist\.tsv has nothing but a header"),
    "empty": (LIST, lambda _: b"", r"imagelist\.tsv is empty"),
    "blank": (LIST, lambda _: b"\n \n", r"imagelist\.tsv is empty"),
    "other encoding": (LIST, more(b"caf\xe9/1.jpg"), r"imagelist\.tsv is not UTF-8 text"),
    "UTF-16": (LIST, lambda text: text.decode().encode("utf-16"), r"imagelist\.tsv is not UTF-8 text"),
    "one column": (VERIFIED, more(b"ramen/c0.jpg"), NO_VERDICT),
    "three columns": (VERIFIED, more(b"ramen/c0.jpg\t1\t1"), NO_VERDICT),
    "other verdict": (VERIFIED, more(b"ramen/c0.jpg\t2"), NO_VERDICT),
    "spaces for tabs": (VERIFIED, more(b"ramen/c0.jpg 1"), NO_VERDICT),
    "verdict on what is no image": (VERIFIED, more(b"../c0.jpg\t1"), NO_VERDICT),
    "no class": (LIST, more(b"c9.jpg"), NO_IMAGE),
    "deeper": (LIST, more(b"ramen/x/c9.jpg"), NO_IMAGE),
    "unknown class": (LIST, more(b"sushi/c9.jpg"), r"line 18: 'sushi' is no class of meta/classes\.txt\."),
    "climbing": (LIST, more(b"../c9.jpg"), NO_IMAGE),
    "climbing out of a class": (LIST, more(b"ramen/.."), NO_IMAGE),
    "absolute": (LIST, more(b"/passwd"), NO_IMAGE),
    "no name": (LIST, more(b"ramen/"), NO_IMAGE),
    "control characters": (LIST, more(b"ramen/\x1b[31m"), NO_IMAGE),
    "NUL": (LIST, more(b"ramen/\0.jpg"), NO_IMAGE),
    "long name": (LIST, more(b"ramen/" + b"x" * 300), NO_IMAGE),
    "a class twice": ("classes.txt", more(b"ramen"), r"classes\.txt has a wrong class, by name number 3: 'ramen'"),
    "one class": ("classes.txt", lambda _: b"class_name\nramen\n", r"classes\.txt has one class; it must have"),
    "a class less": ("classes.txt", lambda text: text.replace(b"ramen\n", b""), r"line 13: 'ramen' is no class of"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_lists_are_refused_in_one_sentence(food: Path, damage: str) -> None:
    name, change, sentence = DAMAGES[damage]
    (food / "meta" / name).write_bytes(change((food / "meta" / name).read_bytes()))
    refused(food, sentence)


def test_any_byte_may_be_another_one(food: Path) -> None:
    said = set()
    for name in (LIST, VERIFIED, "classes.txt"):
        said |= sentences_of_damage(food / "meta" / name, 7, b"\0\n\t/.\xff", lambda: read_food101n(food))
    assert len(said) > 100
    assert all(sentence.isprintable() for sentence in said)


def test_a_pack_trains_and_suspects_are_scored_by_verdicts(tmp_path: Path) -> None:
    """30 images of each class: 4 verified as right, 4 as wrong, 4 clean val; `show` says so."""
    verdicts = ["t1"] * 4 + ["t0"] * 4 + ["v1"] * 4 + [""] * 18
    food = {name: {f"{name[0]}{number}": one for number, one in enumerate(verdicts)} for name in FOOD}
    write_food101n(tmp_path / "Food-101N_release", food)
    write_food101(tmp_path / "food-101", each=3)
    out = tmp_path / "food.pack"
    words = ["import", "food101n", str(tmp_path), "--food101", str(tmp_path / "food-101"), "--out", str(out)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "78 noisy_train, 12 clean_val, 9 clean_test images." in said.output
    assert "Note: Food-101 has 25,250 clean_test; here are 9 clean_test." in said.output
    assert summarize(open_release(out)).known_wrong == 12
    shown = CliRunner().invoke(app, ["show", str(out)]).output
    assert "Noise rate of noisy train: 50.0% (12 of 24 labels of which it is known whether they are right)." in shown
    run = run_in_process(
        tmp_path / "runs", data_dir=str(out), model="cnn", image_size=16, batch_size=4, fraction_train=1.0,
        method="co-teaching", method_args="warm-up-rounds=1",
    )  # fmt: skip
    lines = rounds_of(run)
    assert [line["label-accuracy"] for line in lines] == [0.5, 0.5]
    assert "test-accuracy" in lines[1]
    assert "suspects-precision" in lines[1]


def test_the_command_says_that_there_is_no_test_list(food: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["import", "food101n", str(food), "--out", str(tmp_path / "out"), "--clean-train"])
    assert said.exit_code == 0, said.output
    assert "Note: there is no clean test; it is that of Food-101, whose folder --food101 names." in said.output
    assert "10 noisy_train, 3 clean_train, 3 clean_val images." in said.output
    assert "test-split='none'" in said.output
