"""The model of a run is opened as the run evaluated it, whatever its method, its networks and what trained."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from config.run_config import RunConfig
from data.release import open_release
from learning.evaluation import evaluate
from learning.model_facts import ModelFacts
from runs.errors import RunsError
from runs.model.opened import OpenedModel, open_model
from server_app.checkpoint_file import load_checkpoint, save_checkpoint
from server_app.clean_sets import load_list
from task import HEADS, Networks, build_model
from tests.fakes import CutOffError, cut_off_in, rounds_of
from tests.odd_values import is_a_sentence
from tests.runs.models import KINDS, make_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("runs")
    return {kind: make_run(out, tiny_sample, kind, **values) for kind, values in KINDS.items()}


@pytest.fixture
def run(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one that may be damaged."""
    return Path(shutil.copytree(folders["all"], tmp_path / "run"))


def accuracy_and_loss(opened: OpenedModel, sample: Path) -> list[float]:
    assert opened.config is not None
    listed, pixels = load_list(open_release(sample), "clean_test", opened.facts.image_size, opened.config)
    labels = listed.labels.astype(np.int64)
    found = evaluate(opened.model, pixels, labels, opened.compute, opened.facts.numbers)
    return [found.accuracy, found.loss]


@pytest.mark.parametrize("kind", KINDS)
def test_it_repeats_the_numbers_of_its_round_bit_for_bit(
    kind: str, folders: dict[str, Path], tiny_sample: Path
) -> None:
    by_round = {line["round"]: [line["test-accuracy"], line["test-loss"]] for line in rounds_of(folders[kind])}
    last, best = (open_model(folders[kind], which) for which in ("last", "best"))
    for opened in (last, best):
        assert accuracy_and_loss(opened, tiny_sample) == by_round[opened.facts.round]
        assert isinstance(opened.model, Networks) == kind.startswith("two-networks")
        assert not opened.model.training
        assert not any(HEADS in name or "parametrizations" in name for name, _ in opened.model.named_modules())
        assert not opened.facts.heads
        assert opened.facts.class_names == open_release(tiny_sample).class_names
    assert last.facts.round == 2
    assert last.path.name == "model.safetensors"
    assert best.path.name == "best.safetensors"


def test_a_file_alone_will_do(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    alone = Path(shutil.copy(run / "model.safetensors", tmp_path / "elsewhere" / "x"))
    opened = open_model(alone)
    assert opened.config is None
    assert opened.facts == open_model(run).facts
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(opened.model(image), open_model(run).model(image))
    with pytest.raises(RunsError, match="is no folder of a run, of whose models the best one could be taken"):
        open_model(alone, "best")


def test_a_checkpoint_is_a_file_too(run: Path) -> None:
    opened = open_model(run / "checkpoints" / "round-00002.safetensors")
    image = torch.rand(1, 3, 16, 16)
    assert opened.facts == open_model(run).facts
    assert torch.equal(opened.model(image), open_model(run).model(image))


def test_older_files_have_less_metadata(folders: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("two-networks", "further-heads"):
        with safe_open(folders[kind] / "model.safetensors", "pt") as file:
            known = file.metadata()
        old = {name: known[name] for name in ("class-names", "model", "method", "image-size", "normalization", "round")}
        weights = safetensors.torch.load_file(folders[kind] / "model.safetensors")
        safetensors.torch.save_file(weights, tmp_path / f"{kind}.safetensors", old)
        opened, now = open_model(tmp_path / f"{kind}.safetensors"), open_model(folders[kind])
        image = torch.rand(1, 3, 16, 16)
        assert torch.equal(opened.model(image), now.model(image))
        assert opened.facts.networks == now.facts.networks


def test_a_killed_run_has_its_class_names_in_its_data(tiny_sample: Path, tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        make_run(tmp_path, tiny_sample, "killed", handler=cut_off_in(3))
    (tmp_path / "killed" / "model.safetensors").unlink(missing_ok=True)
    best = tmp_path / "killed" / "checkpoints" / "best.safetensors"
    save_checkpoint(best, replace(load_checkpoint(best), class_names=()))  # as earlier versions wrote it
    opened = open_model(tmp_path / "killed", "best")
    assert opened.facts.class_names == open_release(tiny_sample).class_names
    assert opened.facts.round == 1
    with pytest.raises(RunsError, match="it is written once a minute and when a run ends"):
        open_model(tmp_path / "killed")


def test_frozen_weights_must_be_those_of_the_run(folders: dict[str, Path], tiny_sample: Path, tmp_path: Path) -> None:
    """Of a head, best.safetensors holds the last layer alone."""
    weights = Path(shutil.copy(folders["all"] / "model.safetensors", tmp_path / "weights.safetensors"))
    run = make_run(tmp_path, tiny_sample, "head", trainable="head", pretrained=str(weights))
    before = open_model(run, "best").model(torch.ones(1, 3, 16, 16))
    held = safetensors.torch.load_file(weights)
    held["conv1.weight"] += 1
    safetensors.torch.save_file(held, weights)
    with pytest.raises(RunsError, match="beside frozen weights, which are others now") as error:
        open_model(run, "best")
    assert is_a_sentence(str(error.value))
    weights.unlink()
    with pytest.raises(RunsError, match="cannot be built here: 'pretrained' is ") as error:
        open_model(run, "best")
    assert is_a_sentence(str(error.value))
    assert open_model(run).model(torch.ones(1, 3, 16, 16)).shape == before.shape  # the latest is whole


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def _replace(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], Any]) -> None:
    weights = safetensors.torch.load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    change(weights, metadata)
    safetensors.torch.save_file(weights, path, metadata)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (lambda path: path.unlink(), "has no model.safetensors"),
    "empty": (lambda path: path.write_bytes(b""), "is no safetensors file, or a damaged one"),
    "cut off": (_truncate, "is no safetensors file, or a damaged one"),
    "no metadata": (lambda path: _replace(path, lambda weights, about: about.clear()), "does not say how to use it"),
    "another network": (
        lambda path: _replace(path, lambda weights, about: about.update({"model": "resnet18"})),
        "does not fit its metadata: there is no 'bn2.bias' in resnet18",
    ),
    "fewer classes": (
        lambda path: _replace(path, lambda weights, about: about.update({"class-names": '["a"]'})),
        "'fc.bias' has the shape (14,), which in cnn for 1 classes is (1,)",
    ),
    "a weight less": (
        lambda path: _replace(path, lambda weights, about: weights.pop("fc.bias")),
        "'fc.bias' is missing, of cnn",
    ),
    "three networks": (
        lambda path: _replace(path, lambda weights, about: about.update({"networks": "3"})),
        "does not fit its metadata: there is no 'bn1.bias' in 3 networks cnn",
    ),
    "many networks": (
        lambda path: _replace(path, lambda weights, about: about.update({"networks": "17"})),
        "'networks' is 17, but must be from 1 to 16",
    ),
    "no number": (
        lambda path: _replace(path, lambda weights, about: weights["bn1.running_var"].fill_(math.inf)),
        "cannot be used: its weights are no finite numbers, 'bn1.running_var' for one",
    ),
    "no timm network": (
        lambda path: _replace(path, lambda weights, about: about.update({"model": "timm:resnot"})),
        "cannot be built here: 'model' is 'timm:resnot'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_there_instead_is_one_sentence(damage: str, run: Path) -> None:
    act, said = DAMAGES[damage]
    act(run / "model.safetensors")
    with pytest.raises(RunsError) as error:
        open_model(run)
    assert said in str(error.value)
    newest = run / "checkpoints" / "round-00002.safetensors"
    assert str(error.value).endswith(f"; instead, there is --model best or {newest}.") == ("built here" not in said)
    assert is_a_sentence(str(error.value))


def test_three_networks_of_an_own_method(tmp_path: Path) -> None:
    facts = replace(ModelFacts.of(RunConfig(model="cnn", image_size=16), ("a", "b")), networks=3)
    built = build_model("cnn", 2, 1, networks=3, image_size=16).state_dict()
    weights = {name: value.contiguous() for name, value in built.items()}
    safetensors.torch.save_file(weights, tmp_path / "three.safetensors", facts.to_metadata())
    assert open_model(tmp_path / "three.safetensors").facts.networks == 3


def test_constants_may_be_infinite(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = build_model

    def with_mask(*args: Any, **more: Any) -> Any:
        model = build(*args, **more)
        model.register_buffer("mask", torch.zeros(2))
        return model

    monkeypatch.setattr("runs.model.opened.build_model", with_mask)
    _replace(run / "model.safetensors", lambda weights, about: weights.update(mask=torch.tensor([0, -math.inf])))
    assert open_model(run).model.get_buffer("mask").tolist() == [0, -math.inf]


def test_a_damaged_checkpoint_is_one_sentence(run: Path) -> None:
    path = run / "checkpoints" / "best.safetensors"
    checkpoint = load_checkpoint(path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RunsError, match="its checksum does not match"):
        open_model(run, "best")
    checkpoint.model.pop("fc.bias")
    save_checkpoint(path, checkpoint)
    with pytest.raises(RunsError, match="does not hold the weights of cnn for 14 classes"):
        open_model(run, "best")
    path.unlink()
    with pytest.raises(RunsError, match="the run has picked no best round"):
        open_model(run, "best")


@pytest.mark.parametrize("place", ["absent", "."])
def test_what_is_no_run_is_one_sentence(place: str, tmp_path: Path) -> None:
    with pytest.raises(RunsError) as error:
        open_model(tmp_path / place)
    assert is_a_sentence(str(error.value))
