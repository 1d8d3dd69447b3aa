"""Exported models answer as the model that was exported, and nothing is left behind where that is not so."""

import json
import logging
import math
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from learning.model_facts import ModelFacts
from runs.errors import RunsError
from runs.model.onnx_file import OPSET, _answers, difference, onnx_file
from runs.model.opened import OpenedModel
from runs.model.traced import Classifier, quietly, refusing, torch_export_file, traced
from task import Compute, to_input
from tests.docs.pages import ROOT
from tests.fakes import run_in_process
from tests.runs.exported import NAMES, opened_model, run_alone
from tests.runs.folders import Said

MODELS = {
    "cnn": ("cnn", 16, 1),
    "two networks": ("cnn", 16, 2),
    "resnet": ("resnet18", 33, 1),
    "small stem": ("resnet18", 20, 1),
    "vit": ("timm:test_vit", 32, 1),
}


@cache
def program_of(kind: str) -> tuple[OpenedModel, Any]:
    """Traced once: it takes seconds."""
    opened = opened_model(*MODELS[kind])
    return opened, traced(opened)


@cache
def onnx_of(kind: str) -> bytes:
    return onnx_file(*program_of(kind))


def photos(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def expected(opened: OpenedModel, images: np.ndarray) -> np.ndarray:
    """As evaluation computes logits."""
    compute = Compute(torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        logits: torch.Tensor = opened.model(to_input(torch.from_numpy(images), compute, opened.facts.numbers))
    return logits.numpy()


@pytest.mark.parametrize("kind", MODELS)
def test_onnx_answers_as_pytorch_does_whatever_the_batch(kind: str) -> None:
    opened, file = program_of(kind)[0], onnx_of(kind)
    found = difference(opened, file)
    assert found is not None
    assert found < 1e-4
    for count in (1, 5):
        images = photos(count, opened.facts.image_size)
        logits, probabilities = _answers(file, images)
        assert logits == pytest.approx(expected(opened, images), abs=1e-4)
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert probabilities == pytest.approx(softmax, abs=1e-5)
        if kind == "two networks":  # their logits are logarithms of probabilities
            assert np.exp(logits) == pytest.approx(probabilities, abs=1e-5)


def test_an_onnx_file_says_how_to_use_it_and_names_nothing_of_this_machine() -> None:
    file = onnx_of("cnn")
    model = onnx.load_from_string(file)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    (images,) = model.graph.input
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = [one.dim_param or one.dim_value for one in images.type.tensor_type.shape.dim]
    assert sizes == ["batch", 16, 16, 3]
    assert [one.name for one in model.graph.output] == ["logits", "probabilities"]
    said = {one.key: one.value for one in model.metadata_props}
    assert json.loads(said["class-names"]) == list(NAMES)
    assert (said["model"], said["image-size"], said["round"]) == ("cnn", "16", "2")
    assert json.loads(said["mean"]) == [0.6959, 0.6537, 0.6371]
    assert json.loads(said["deviation"]) == [0.3113, 0.3192, 0.3214]
    assert said["input"].startswith("images: uint8 (batch, 16, 16, 3), RGB;")
    assert str(ROOT).encode() not in file
    assert b"stack_trace" not in file


def test_a_normalised_array_is_refused_instead_of_answered() -> None:
    """It is the most frequent mistake with exported models, and silent where the input is float32."""
    with pytest.raises(Exception, match="tensor\\(uint8\\)"):
        _answers(onnx_of("cnn"), photos(1, 16).astype(np.float32))


def test_a_program_of_pytorchs_runs_where_this_app_is_not(tmp_path: Path) -> None:
    opened, program = program_of("two networks")
    file = torch_export_file(program, opened.facts)
    assert str(ROOT).encode() not in file
    (tmp_path / "model.pt2").write_bytes(file)
    side = opened.facts.image_size
    np.save(tmp_path / "images.npy", photos(3, side))
    code = (
        "import json, numpy, torch\n"
        "texts = {'facts.json': ''}\n"
        "model = torch.export.load('model.pt2', extra_files=texts).module()\n"
        "images = torch.from_numpy(numpy.load('images.npy'))\n"
        "logits = torch.cat([model(images[:1])[0], model(images[1:])[0]])\n"
        "print(json.dumps([logits.tolist(), json.loads(texts['facts.json'])]))\n"
    )
    logits, said = json.loads(run_alone(code, tmp_path))
    assert np.array(logits) == pytest.approx(expected(opened, photos(3, side)), abs=1e-5)
    assert json.loads(said["class-names"]) == list(NAMES)


def test_the_normalisation_inside_is_the_trainings_bit_for_bit() -> None:
    images = torch.from_numpy(photos(2, 16))
    facts = opened_model().facts
    logits, _ = Classifier(nn.Flatten(), facts)(images)
    compute = Compute(torch.device("cpu"), torch.float32)
    assert torch.equal(logits, to_input(images, compute, facts.numbers).flatten(1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    return run_in_process(
        tmp_path_factory.mktemp("runs"),
        clients=2,
        model="cnn",
        image_size=16,
        num_server_rounds=1,
        data_dir=str(tiny_sample),
    )


def test_the_command_writes_what_is_asked_for_and_says_what_was_checked(
    trained: Path, runs: Callable[..., Said], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = ("--onnx", out / "a.onnx", "--torch-export", out / "b.pt2", "--hub", out / "hub", "--model", "best")
    said = runs("export", trained, *words)
    assert said.code == 0, said.err
    assert sorted(path.name for path in out.iterdir()) == ["a.onnx", "b.pt2", "hub"]
    hub, onnx_line, program = said.out.splitlines()
    assert hub.startswith(f"{out / 'hub'}: a folder for the Hugging Face hub")
    assert f"opset {OPSET}; logits of ONNX Runtime differ from PyTorch's by " in onnx_line
    assert program.startswith(f"{out / 'b.pt2'}: 0.")
    assert said.err == ""  # PyTorch's exporters talk
    assert "which the run picked as its best" in (out / "hub" / "README.md").read_text(encoding="utf-8")


def test_without_onnx_runtime_it_says_that_nothing_was_checked(
    trained: Path, runs: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.model.onnx_file.find_spec", lambda name: None if name == "onnxruntime" else name)
    said = runs("export", trained / "model.safetensors", "--onnx", tmp_path / "a.onnx")
    assert "not compared with PyTorch, which needs `pip install onnxruntime`." in said.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing is to be written; name at least one of --onnx, --torch-export and --hub."),
        (["--onnx", "a.bin"], "--onnx is a.bin; it must end in .onnx."),
        (["--torch-export", "a.pt"], "--torch-export is a.pt; it must end in .pt2."),
        (["--onnx", "there.onnx"], "--onnx is there.onnx, which exists already; it must be a file that does not."),
        (["--onnx", "no/a.onnx"], "--onnx is no/a.onnx, but no is not a folder; it must be one."),
        (["--hub", "full"], "--hub is full, which is not empty; it must be a folder that is, or a new one."),
        (["--hub", "new"], "RUN is 'absent'; it must be the folder of a run"),
    ],
)
def test_what_is_refused_before_anything_is_opened(
    words: list[str], sentence: str, runs: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.onnx").write_text("mine", encoding="utf-8")
    Path("full").mkdir()
    Path("full/mine").touch()
    said = runs("export", "absent", *words)
    assert said.code == 1
    assert said.err.startswith(f"python -m runs: {sentence}")
    assert Path("there.onnx").read_text(encoding="utf-8") == "mine"


def test_without_onnx_the_sentence_says_how_to_install_it(
    runs: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.model.onnx_file.find_spec", lambda name: None)
    (tmp_path / "file").touch()
    said = runs("export", tmp_path / "file", "--onnx", tmp_path / "a.onnx")
    assert "--onnx needs onnx and onnxscript, which are not installed here: `pip install onnx onnxscript`." in said.err


@pytest.mark.parametrize("wrong", [1.0, math.nan])
def test_a_file_that_answers_otherwise_is_not_written(
    wrong: float, trained: Path, runs: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.model.onnx_file._answers", lambda *args: [one + wrong for one in _answers(*args)])
    said = runs("export", trained, "--onnx", tmp_path / "a.onnx")
    assert said.code == 1
    assert "the exported cnn is not the model: ONNX Runtime's logits differ from PyTorch's by" in said.err
    assert not list(tmp_path.glob("*.onnx*"))
    assert not list(tmp_path.glob(".a.onnx*"))


def test_what_pytorch_cannot_trace_is_one_sentence() -> None:
    class Odd(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if inputs.sum() > 0:
                return inputs.flatten(1)
            return -inputs.flatten(1)

    opened = opened_model()
    odd = OpenedModel(Odd(), opened.facts, opened.path, opened.compute)
    with pytest.raises(RunsError, match=r"^PyTorch [\d.+a-z]+ cannot trace cnn: .{10,}\.$"):
        traced(odd)


def test_weights_that_do_not_fit_into_an_onnx_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.model.onnx_file.weights_gib", lambda model: 2.4)
    with pytest.raises(RunsError, match=r"the weights of cnn take 2\.4 GiB, but an ONNX file holds less than 2; use"):
        onnx_file(*program_of("cnn"))


def test_nothing_of_the_exporters_is_heard(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with quietly():
        print("out")
        print("err", file=sys.stderr)
        logging.getLogger("torch.onnx").critical("logged")
        warnings.warn("warned", stacklevel=1)
    assert tuple(capfd.readouterr()) == ("", "")
    assert not caplog.records
    logging.getLogger("other").warning("heard again")
    assert len(caplog.records) == 1


def test_errors_of_memory_and_of_the_disk_stay_what_they_are() -> None:
    facts: ModelFacts = opened_model().facts
    for error in (MemoryError(), OSError(28, "No space left on device"), RunsError("x")):
        with pytest.raises(type(error)), refusing(facts, "save"):
            raise error
