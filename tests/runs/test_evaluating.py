"""`python -m runs evaluate`: a run's own numbers again, bit for bit; those on other data; what is drawn."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import data.__main__
from data.images.loading import load_images
from data.release import Release, open_release
from data.text import shown
from learning.evaluation import Evaluation, evaluate
from runs.model.evaluating import _other
from runs.model.judging import Judged, judge
from runs.model.labelled import Labelled
from runs.model.opened import open_model
from server_app.checkpoint_file import load_checkpoint, save_checkpoint
from tests.fakes import rounds_of
from tests.odd_values import is_a_sentence
from tests.runs.folders import Said
from tests.runs.models import make_run

Runs = Callable[..., Said]
NAMES = ("T-Shirt", "Dress", "Vest")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    """Of the module's own: tests change it, and put it back."""
    return Path(shutil.copytree(tiny_sample, tmp_path_factory.mktemp("evaluated") / "release"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    more: dict[str, Any] = {"val_split": "clean_train", "learning_rate": 0.1}
    return make_run(tmp_path_factory.mktemp("runs"), sample, "run", **more)


def numbers(run: Path, release: Release, split: str) -> Evaluation:
    """By hand."""
    opened, listed = open_model(run), release.split(split)
    pixels = load_images(release, listed.keys, opened.facts.image_size)
    return evaluate(opened.model, pixels, listed.labels, opened.compute, opened.facts.numbers)


def test_it_repeats_the_last_line_of_metrics_jsonl(run: Path, runs: Runs) -> None:
    last = rounds_of(run)[-1]
    found = runs("evaluate", run, "--json").json
    assert (found["accuracy"], found["loss"]) == (last["test-accuracy"], last["test-loss"])
    for name in ("macro-f1", "per-class-recall", "confusion-matrix"):
        assert found[name] == last[name]
    assert (found["as-in-metrics"], found["round"], found["images"], found["notes"]) == (True, 2, 40, [])
    said = runs("evaluate", run)
    assert f"accuracy {100 * last['test-accuracy']:.1f} %, loss {last['test-loss']:.4f}" in said.out
    assert "These are the numbers of round 2 in metrics.jsonl, to the last bit." in said.out


def test_the_best_model_and_the_list_that_picked_it(run: Path, runs: Runs) -> None:
    picked = max(rounds_of(run), key=lambda line: float(line["val-accuracy"]))
    for split, kind in (("clean_test", "test"), ("clean_train", "val")):
        found = runs("evaluate", run, "--model", "best", "--split", split, "--json").json
        assert (found["round"], found["as-in-metrics"]) == (picked["round"], True)
        assert (found["accuracy"], found["loss"]) == (picked[f"{kind}-accuracy"], picked[f"{kind}-loss"])


def test_another_list_has_the_labels_that_training_sees(run: Path, sample: Path, runs: Runs) -> None:
    found = runs("evaluate", run, "--split", "noisy_train", "--json").json
    by_hand = numbers(run, open_release(sample), "noisy_train")
    assert (found["accuracy"], found["loss"], found["images"]) == (by_hand.accuracy, by_hand.loss, 120)
    assert found["as-in-metrics"] is None


def test_parts_that_fit_into_memory_give_the_same(run: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_model(run)
    whole = judge(opened, Labelled.of_run(opened, "noisy_train"))
    monkeypatch.setattr("runs.model.labelled.MOST_AT_ONCE", 1)
    monkeypatch.setattr("runs.model.labelled.evaluation_batch", lambda size, device: 40)
    monkeypatch.setattr("learning.evaluation.evaluation_batch", lambda size, device: 40)
    images = Labelled.of_run(opened, "noisy_train")
    assert [len(block.names) for block in images.blocks()] == [40, 40, 40]
    parts = judge(opened, images)
    assert parts.names == whole.names
    assert np.array_equal(parts.predicted, whole.predicted)
    assert np.allclose(parts.loss, whole.loss, atol=1e-6)
    assert parts.evaluation.loss == pytest.approx(whole.evaluation.loss)


def test_data_that_have_changed_are_named(run: Path, sample: Path, runs: Runs) -> None:
    file = sample / "clean_test_key_list.txt"
    before = file.read_bytes()
    file.write_bytes(before.partition(b"\n")[2])
    found = runs("evaluate", run)
    file.write_bytes(before)
    assert "39 images" in found.out
    last = rounds_of(run)[-1]
    there = f"accuracy {100 * last['test-accuracy']:.1f} %, loss {last['test-loss']:.4f}"
    assert f"These are not the numbers of round 2, of which metrics.jsonl has {there}." in found.out
    assert f"clean_test of {sample} has changed since the run began: it names other images or labels." in found.out


def test_rounding_is_blamed_for_what_it_does_alone() -> None:
    found = Evaluation(2.0, np.array([[3.0, 1.0], [1.0, 5.0]]))
    assert "the last digits depend on the machine" in _other((0.9, 2.00005), found, 2, False)
    for known in ((0.6, 2.0), (0.8, 2.1)):
        assert "the images, or how they are read, must have changed." in _other(known, found, 2, False)
    assert _other((0.6, 2.5), found, 2, True).endswith("metrics.jsonl has accuracy 60.0 %, loss 2.5000.")


def test_data_that_have_moved_are_compared_as_well(run: Path, sample: Path, tmp_path: Path, runs: Runs) -> None:
    away = sample.rename(sample.with_name("away"))
    said = runs("evaluate", run)
    found = runs("evaluate", run, "--data", away)
    as_json = runs("evaluate", run, "--data", away, "--json").json
    away.rename(sample)
    assert "say with --data where the run's images are now" in said.err
    assert "These are the numbers of round 2 in metrics.jsonl, to the last bit." in found.out
    assert as_json["as-in-metrics"] is True


def test_a_broken_image_of_the_test_set(run: Path, sample: Path, runs: Runs) -> None:
    release = open_release(sample)
    path = Path(release.store.place(bytes(release.split("clean_test").keys[0])))
    before = path.read_bytes()
    path.write_bytes(b"nothing")
    said, without = runs("evaluate", run), runs("evaluate", run, "--data", sample, "--json")
    path.write_bytes(before)
    assert (said.code, without.json["images"]) == (1, 39)
    assert said.err.endswith(f"; `--data {sample}` evaluates without such images.\n")


def test_data_that_are_none(run: Path, tmp_path: Path, runs: Runs) -> None:
    may_be = "it must be a release, a pack of one, or a folder with one folder of photos per class"
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    for name, why in (
        ("absent", f", which does not exist; {may_be}."),
        ("a.png", f", which is a single photo; {may_be}."),
        ("empty", f"; {may_be} ({tmp_path / 'empty'} is empty; it must be "),
    ):
        said = runs("evaluate", run, "--data", tmp_path / name)
        assert said.code == 1
        assert said.err.startswith(f"python -m runs: --data is {shown(str(tmp_path / name))}{why}"), said.err


def test_data_that_are_gone_are_one_sentence(run: Path, sample: Path, runs: Runs) -> None:
    sample.rename(sample.with_name("away"))
    said = runs("evaluate", run)
    sample.with_name("away").rename(sample)
    assert said.code == 1
    assert is_a_sentence(said.err.strip())
    assert str(sample) in said.err


def test_another_release_or_pack_of_it(run: Path, sample: Path, tmp_path: Path, runs: Runs) -> None:
    """Class names are matched, in whatever order and case; images of unknown classes are left out."""
    other = Path(shutil.copytree(sample, tmp_path / "other"))
    own = runs("evaluate", run, "--json").json
    names = (other / "category_names_eng.txt").read_text().split("\n")
    swapped = [names[1].upper(), names[0].lower(), *names[2:]]
    (other / "category_names_eng.txt").write_text("\n".join(swapped))
    confusion = np.array(own["confusion-matrix"])
    confusion[[0, 1]] = confusion[[1, 0]]
    assert runs("evaluate", run, "--data", other, "--json").json["confusion-matrix"] == confusion.tolist()

    (other / "category_names_eng.txt").write_text("\n".join(["Cape", *names[1:]]))
    found = runs("evaluate", run, "--data", other, "--json").json
    of_class = int(np.array(own["confusion-matrix"])[0].sum())
    assert found["images"] == 40 - of_class
    assert found["notes"] == [f"{of_class} images of class Cape left out: the model does not know it."]
    assert found["per-class-recall"][0] is None
    assert found["as-in-metrics"] is None

    (other / "category_names_eng.txt").write_text("\n".join(f"x{number}" for number in range(14)))
    said = runs("evaluate", run, "--data", other)
    assert said.code == 1
    assert "has the classes x0, x1, x2, x3, x4 and 9 more, and the model the classes T-Shirt, Shirt, " in said.err

    packed = CliRunner().invoke(data.__main__.app, ["pack", str(sample), "--out", str(tmp_path / "x.pack")])
    assert packed.exit_code == 0, packed.output
    assert runs("evaluate", run, "--data", tmp_path / "x.pack", "--json").json["loss"] == own["loss"]


@pytest.fixture
def photos(sample: Path, tmp_path: Path) -> Path:
    """Clean test, sorted into a folder for each of three classes, and one that no model knows."""
    release = open_release(sample)
    listed = release.split("clean_test")
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for key in listed.keys[listed.labels == release.class_names.index(name)]:
            place = tmp_path / "photos" / name / Path(key.decode()).name
            place.write_bytes(release.store.encoded(bytes(key)))
    (tmp_path / "photos" / "Cape").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "Cape" / "a.png")
    return tmp_path / "photos"


def test_a_folder_per_class(run: Path, photos: Path, runs: Runs) -> None:
    own = np.array(runs("evaluate", run, "--json").json["confusion-matrix"])
    rows = [open_model(run).facts.class_names.index(name) for name in NAMES]
    (photos / "Vest" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    found = runs("evaluate", run, "--data", photos, "--json").json
    assert np.array_equal(np.array(found["confusion-matrix"])[rows], own[rows])
    assert (found["images"], found["split"]) == (own[rows].sum(), None)
    assert found["notes"][0] == "1 image of class Cape left out: the model does not know it."
    assert "Vest/broken.jpg" in found["notes"][1]
    assert is_a_sentence(found["notes"][1])
    said = runs("evaluate", run, "--data", photos, "--split", "clean_val")
    assert (said.code, said.err) == (
        1, f"python -m runs: --split is clean_val, but {photos} holds photos without lists.\n",
    )  # fmt: skip


def test_a_file_alone_needs_to_be_told_on_what(run: Path, sample: Path, tmp_path: Path, runs: Runs) -> None:
    alone = shutil.copy(run / "model.safetensors", tmp_path / "alone.safetensors")
    said = runs("evaluate", alone)
    assert said.code == 1
    assert "alone.safetensors is not in the folder of a run whose config.toml can be read; say with --data" in said.err
    found = runs("evaluate", alone, "--data", sample, "--json").json
    assert found["loss"] == runs("evaluate", run, "--json").json["loss"]


def test_a_run_without_a_test_set(tiny_sample: Path, tmp_path: Path, runs: Runs) -> None:
    run = make_run(tmp_path, tiny_sample, "run", num_server_rounds=1)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('test-split = "clean_test"', 'test-split = "none"'))
    said = runs("evaluate", run)
    assert (said.code, said.err) == (
        1,
        "python -m runs: the run has no test set ('test-split' is none); say with --data or --split on what.\n",
    )
    assert runs("evaluate", run, "--split", "clean_val").code == 0


def test_a_run_of_real_nodes_whose_server_has_no_data(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class names are those of the sites, and so is all that the model can be evaluated on."""
    monkeypatch.setattr("server_app.app.is_remote", lambda grid: True)
    rng = np.random.default_rng(1)
    for site in ("north", "south"):
        for name in ("coats", "shirts"):
            (tmp_path / site / name).mkdir(parents=True)
            for number in range(6):
                photo = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
                photo.save(tmp_path / site / name / f"{site} {number}.png")
    nodes = [{"data-dir": str(tmp_path / site)} for site in ("north", "south")]
    more: dict[str, Any] = {"nodes": nodes, "test_split": "none", "val_split": "none", "fraction_train": 1.0}
    run = make_run(tmp_path / "runs", Path(), "run", data_dir="", **more)
    assert open_model(run).facts.class_names == ("coats", "shirts")
    said = runs("evaluate", run)
    assert (said.code, said.err) == (
        1,
        "python -m runs: the run has no test set ('test-split' is none); say with --data or --split on what.\n",
    )
    found = runs("evaluate", run, "--data", tmp_path / "north", "--json").json
    assert (found["images"], found["class-names"], found["notes"]) == (12, ["coats", "shirts"], [])
    predicted = runs("predict", run, tmp_path / "south" / "coats", "--json").json
    assert len(predicted["photos"]) == 6
    assert open_model(run / "checkpoints" / "round-00002.safetensors").facts == open_model(run).facts
    (run / "model.safetensors").unlink()
    again = runs(
        "evaluate", run / "checkpoints" / "round-00002.safetensors", "--data", tmp_path / "north", "--json"
    ).json
    assert again["loss"] == found["loss"]
    older = replace(load_checkpoint(run / "checkpoints" / "round-00002.safetensors"), class_names=())
    save_checkpoint(run / "checkpoints" / "round-00002.safetensors", older)
    said = runs("evaluate", run / "checkpoints" / "round-00002.safetensors", "--data", tmp_path / "north")
    assert (
        "does not say what its classes are called, and there is no model.safetensors of its run that does" in said.err
    )


def test_pictures_are_drawn_after_the_numbers(run: Path, tmp_path: Path, runs: Runs) -> None:
    said = runs("evaluate", run, "--confusion", tmp_path / "c.png", "--worst", tmp_path / "w.jpg")
    assert said.code == 0
    for name in ("c.png", "w.jpg"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200


def test_a_picture_that_cannot_be_written_is_noticed_before_the_work(run: Path, tmp_path: Path, runs: Runs) -> None:
    said = runs("evaluate", run, "--worst", tmp_path / "nowhere" / "w.png")
    assert (said.code, said.out) == (1, "")
    assert "--worst is" in said.err
    assert is_a_sentence(said.err.strip())


def test_the_worst_mistakes_are_those_of_the_highest_loss() -> None:
    judged = Judged(
        Evaluation(1.0, np.eye(2)), list("abcde"), truth=np.array([0, 1, 0, 1, 0]), predicted=np.array([1, 1, 1, 0, 1]),
        probability=np.ones(5, np.float32), loss=np.array([1.0, 9.0, 3.0, 2.0, 3.0], np.float32),
    )  # fmt: skip
    assert judged.worst(10).tolist() == [2, 4, 3, 0]
    assert judged.worst(2).tolist() == [2, 4]
