"""A folder for the hub: others load it, and its card says what is known and no more."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from config.run_config import Value
from data.errors import DataError
from data.images.decode import resize
from data.noise.published import CLEAN_TEST_COUNTS
from data.sample import NAMES as GARMENTS
from runs.hub.card import card
from runs.hub.data import Source, source_of
from runs.hub.folder import write_folder
from runs.hub.measured import measured
from runs.hub.subject import Subject
from runs.markup import code, markdown, quoted
from runs.model.opened import open_model
from runs.run import Run
from task import Compute, to_input
from tests.runs.exported import NAMES, opened_model, run_alone
from tests.runs.made import line, made

CONFUSION = [[6, 2, 0], [1, 3, 0], [0, 4, 0]]
MODELS = (
    ("cnn", 16, 1), ("cnn", 16, 2), ("squeezenet1_1", 32, 2), ("resnet18", 33, 1), ("resnet18", 32, 2),
    ("mnasnet0_5", 32, 1),
    ("timm:test_vit", 32, 1), ("timm:test_vit", 32, 2),
)  # fmt: skip


def run_of(
    config: Mapping[str, Value] | None = None, confusion: Sequence[Sequence[int]] = CONFUSION, **more: Any
) -> Run:
    """Two rounds, the second of which has this confusion on clean test."""
    table = np.array(confusion)
    recall = [round(float(row[number] / row.sum()), 6) for number, row in enumerate(table)]
    accuracy = float(np.trace(table) / table.sum())
    last = {"confusion_matrix": table.tolist(), "per_class_recall": recall, "macro_f1": 0.4, **more.pop("line", {})}
    lines = [line(1, 0.25), line(2, accuracy, **last)]
    return made(lines=lines, config={"data-dir": "/secret/photos", **(config or {})}, **more)


def subject_of(run: Run | None = None, **more: Any) -> Subject:
    return Subject(opened_model(**more), run)


def front_matter(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


LYING = Image.Exif()
LYING[0x0112] = 6  # the orientation tag of a camera that was held upright
IN_EACH = """
import json, os
for folder in {folders}:
    os.chdir(folder)
    with open("README.md", encoding="utf-8") as file:
        block = file.read().split("```python\\n")[1].split("```")[0]
    exec(block.replace("photo.jpg", "photo.png"), {{}})
    os.chdir("..")
"""


def test_the_lines_of_the_card_load_it_where_this_app_is_not(tmp_path: Path) -> None:
    """In one process, as each begins with seconds of importing. They turn the photo upright, too."""
    expected = []
    for number, (name, side, networks) in enumerate(MODELS):
        subject, folder = subject_of(run_of(), name=name, side=side, networks=networks), tmp_path / f"hub {number}"
        write_folder(subject, folder)
        photo = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        lying = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
        lying.save(folder / "photo.png", exif=LYING)
        compute = Compute(torch.device("cpu"), torch.float32)
        with torch.inference_mode():
            inputs = to_input(torch.from_numpy(photo)[None], compute, subject.opened.facts.numbers)
            probabilities = subject.opened.model(inputs).softmax(dim=1)[0]
        expected.append((NAMES[int(probabilities.argmax())], float(probabilities.max())))
    folders = [f"hub {number}" for number in range(len(MODELS))]
    said = [line.split() for line in run_alone(IN_EACH.format(folders=folders), tmp_path).splitlines()]
    assert [name for name, _ in said] == [name for name, _ in expected]
    assert [float(value) for _, value in said] == pytest.approx([value for _, value in expected], abs=1e-5)


@pytest.mark.parametrize(("name", "side"), [("timm:test_vit", 32), ("timm:test_resnet", 48)])
def test_timm_takes_photos_as_training_did(name: str, side: int, tmp_path: Path) -> None:
    """`create_transform` of the folder's config is Pillow's resizing, within a level or two of ours."""
    timm = pytest.importorskip("timm")
    write_folder(subject_of(run_of(), name=name, side=side, normalization="half"), tmp_path / "hub")
    network = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    ramp = np.linspace(0, 255, 3 * side).astype(np.uint8)
    photo = np.stack([np.broadcast_to(ramp, (2 * side, 3 * side))] * 3, axis=2).copy()
    ours = resize(photo, side, side).astype(np.float32) / 255 * 2 - 1
    assert transform(Image.fromarray(photo)).permute(1, 2, 0).numpy() == pytest.approx(ours, abs=4 / 255)
    assert network.pretrained_cfg["label_names"] == list(NAMES)


def test_the_app_opens_the_weights_of_the_folder_itself(tmp_path: Path) -> None:
    subject = subject_of(run_of(), networks=2)
    write_folder(subject, tmp_path / "hub")
    again = open_model(tmp_path / "hub" / "model.safetensors")
    assert again.facts == subject.opened.facts
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, subject.opened.model.state_dict()[name])


def test_the_folder_is_there_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)  # of the second file
    with pytest.raises(DataError, match="No space left"):
        write_folder(subject_of(run_of()), tmp_path / "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_config_json_says_what_a_network_is_and_wants(tmp_path: Path) -> None:
    write_folder(subject_of(run_of(), networks=2), tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text(encoding="utf-8")) == {
        "architecture": "cnn", "library": "torch", "networks": 2, "num_classes": 3, "label_names": list(NAMES),
        "image_size": 16, "normalization": "clothing1m", "input_size": [3, 16, 16],
        "mean": [0.6959, 0.6537, 0.6371], "std": [0.3113, 0.3192, 0.3214],
        "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash",
    }  # fmt: skip


def test_the_numbers_of_the_models_own_round() -> None:
    """9 of 16 are right, worked by hand."""
    text = card(subject_of(run_of()))
    (results,) = front_matter(text)["model-index"][0]["results"]
    assert results["dataset"]["split"] == "clean_test"
    assert {one["type"]: one["value"] for one in results["metrics"]} == {"accuracy": 0.5625, "f1": 0.4}
    assert "On the 16 images of the list `clean_test`" in text
    assert "| accuracy | 56.2 % (standard error 12.4) |" in text
    assert "| accuracy of always answering with the most frequent class | 50.0 % |" in text
    assert "| cats | 8 | 75.0 % | 85.7 % |" in text
    assert "| dogs | 4 | 75.0 % | 33.3 % |" in text
    assert "| eels | 4 | 0.0 % | - |" in text
    assert "these are the weights after its last round, 2." in text
    of_first = card(subject_of(run_of(), server_round=1))
    assert front_matter(of_first)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.25


def test_a_model_that_was_not_tested_says_so_first() -> None:
    config: dict[str, Value] = {
        "test-split": "none",
        "val-split": "noisy",
        "holdout-fraction": 0.1,
        "fraction-evaluate": 0.5,
    }
    lines = [line(2, None, val_accuracy=0.5), line(3, None, val_accuracy=0.9, own_accuracy_before=0.625)]
    text = card(subject_of(made(lines=lines, config=config)))
    assert "**Nothing is known of its accuracy on clean images: this model was not tested.**" in text
    assert "no test images (`test-split = none`)" in text
    assert "| clients' held-out images (their own labels) | 50.0 % |" in text
    assert (
        "| held-out images (their own labels) of the next round's clients | 62.5 % |" in text
    )  # of round 3, on this model
    assert "It has not been tested" in text
    assert not {"model-index", "metrics"} & front_matter(text).keys()


@pytest.mark.parametrize(
    ("config", "class_names", "counts", "source"),
    [
        ({"data-dir": ""}, GARMENTS, None, Source.DRAWN),
        ({}, GARMENTS, CLEAN_TEST_COUNTS.tolist(), Source.CLOTHING1M),
        ({}, GARMENTS, [7] * 14, Source.ITS_CLASSES),
        ({}, NAMES, None, Source.OTHER),
    ],
)
def test_what_the_data_seems_to_be(
    config: dict[str, Value], class_names: tuple[str, ...], counts: list[int] | None, source: Source
) -> None:
    confusion = np.diag(counts or [5] * len(class_names)).tolist()
    subject = subject_of(run_of(config, confusion), class_names=class_names)
    assert source_of(subject) is source
    text = card(subject)
    assert ("forbid passing the data on" in text) == (source in (Source.CLOTHING1M, Source.ITS_CLASSES))
    assert ("About 38 % of the labels" in text) == (source is Source.CLOTHING1M)
    assert ("drawn pictures of garments" in text) == (source is Source.DRAWN)
    assert ("How many of its labels are wrong is not known here." in text) == (source is Source.OTHER)
    known = {Source.CLOTHING1M: ["clothing1m"], Source.DRAWN: ["clothing1m-fl-sample"]}
    assert front_matter(text).get("datasets") == known.get(source)
    assert front_matter(text)["license"] == "unknown"


def test_a_server_without_data_used_no_sample() -> None:
    """Its classes are then those that its nodes have."""
    config: dict[str, Value] = {"data-dir": "", "test-split": "none"}
    assert source_of(subject_of(run_of(config, record={"data": {}}), class_names=GARMENTS)) is Source.ITS_CLASSES
    assert source_of(subject_of(run_of(config), class_names=GARMENTS)) is Source.DRAWN


def test_of_a_file_alone_nothing_is_claimed() -> None:
    text = card(subject_of(None, path=Path("/downloads/cats.safetensors")))
    assert source_of(subject_of(None)) is Source.UNKNOWN
    assert "# cats\n" in text
    assert "Nothing is known but the file of the model." in text
    assert "Nothing is known of its accuracy" in text
    assert "## Privacy" not in text


def test_no_path_of_the_machine_is_in_the_card() -> None:
    config: dict[str, Value] = {
        "pretrained": "/secret/weights.pth", "partition": "file", "partition-args": "path='/secret/parts.csv'",
        "output-dir": "/secret/out", "cache-dir": "/secret/cache", "state-dir": "/secret/state",
    }  # fmt: skip
    text = card(subject_of(run_of(config, folder=Path("/secret"))))
    assert "secret" not in text
    assert "| images to clients | `file (path=a file)` |" in text
    assert "| initial weights | `a file` |" in text
    assert "Training began from other weights" in text


@pytest.mark.parametrize(
    ("how", "said"),
    [("finished", "It ended before its last round: no better"), ("stopped", "It stopped before its last round.")],
)
def test_only_a_rule_of_the_config_is_quoted(how: str, said: str) -> None:
    """What stopped a run may name a file of the machine."""
    reason = "no better validation" if how == "finished" else "/secret/images/1.jpg cannot be read."
    text = card(subject_of(run_of({"num-server-rounds": 9}, record={"how": how, "reason": reason})))
    assert said in text
    assert "secret" not in text


def test_with_privacy_the_seed_is_kept_back() -> None:
    """Whoever knows it can draw the noise again, and take it off."""
    private: dict[str, Value] = {"privacy": "server-fixed", "privacy-args": "noise-multiplier=1.0 clipping-norm=5.0"}
    text, other = card(subject_of(run_of(private, seed=8_642_097))), card(subject_of(run_of(seed=8_642_097)))
    assert "8642097" not in text
    assert "| seed | `8642097` |" in other
    assert "`server-fixed (clipping-norm=5.0, noise-multiplier=1.0)`, over 2 rounds" in text


ODD = ('a"b: [c]', "x | y `z` ``", "<b>&amp;</b>", "---", "# !!python/object:os.system", "été 服", "*_~$\\", "%", "- -")


def test_nobody_elses_text_becomes_part_of_yaml_or_markdown(tmp_path: Path) -> None:
    run = run_of(confusion=np.diag([3] * len(ODD)).tolist(), name='odd "name"\n---\nlicense: mit | <i>')
    subject = Subject(opened_model(class_names=ODD), run)
    text = card(subject)
    data = front_matter(text)
    assert data["license"] == "unknown"
    assert data["model-index"][0]["name"] == 'odd "name"?---?license: mit | <i>'
    rows = [row for row in text.splitlines() if row.endswith("| 3 | 100.0 % | 100.0 % |")]
    assert len(rows) == len(ODD)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert "<b>" not in text.split("```")[2]
    write_folder(subject, tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text(encoding="utf-8"))["label_names"] == list(ODD)


@pytest.mark.parametrize("text", [*ODD, "", "a\nb", "\x85\u2028\ufeff", "\U0001f9e5", "`", "x" * 500])
def test_a_name_is_one_scalar_of_yaml_and_one_span_of_markdown(text: str) -> None:
    assert isinstance(yaml.safe_load(f"name: {quoted(text)}")["name"], str)
    assert "\n" not in code(text)
    fences = re.match("`+", code(text))
    assert fences is not None
    assert code(text).count(fences[0]) >= 2
    assert not re.search(r"(?<!\\)[|<]", markdown(text))


def test_the_library_of_the_hub_reads_the_numbers() -> None:
    """`huggingface_hub` comes with timm."""
    library = pytest.importorskip("huggingface_hub")
    data = library.ModelCard(card(subject_of(run_of()))).data
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [("accuracy", 0.5625), ("f1", 0.4)]


def test_lines_that_make_no_sense_count_as_not_tested() -> None:
    assert measured(subject_of(made(lines=[line(2, float("nan"))]))) is None
    found = measured(subject_of(run_of(line={"confusion_matrix": [["x"]], "per_class_recall": "no"})))
    assert found is not None
    assert (found.images, found.classes) == (None, ())
