"""Files of weights in every form, whole and damaged: loaded, or refused in one sentence about what is in them."""

import io
import random
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from config.run_config import ConfigError, RunConfig
from learning.pretrained import load_pretrained
from learning.weights_file import WRAPPERS
from server_app.checkpoint_file import Checkpoint, save_checkpoint
from task import build_model

Weights = dict[str, Tensor]
CLASSES = 9


def weights_of(name: str = "cnn", seed: int = 8, networks: int = 1) -> Weights:
    state = build_model(name, CLASSES, seed=seed, networks=networks).state_dict()
    return {key: value.clone().contiguous() for key, value in state.items()}


def as_zip(weights: Any, path: Path) -> None:
    torch.save(weights, path)


def as_legacy(weights: Any, path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def as_safetensors(weights: Weights, path: Path) -> None:
    safetensors.torch.save_file(weights, path)


def as_checkpoint(weights: Weights, path: Path) -> None:
    model = {key: value.numpy() for key, value in weights.items()}
    # A strategy keeps arrays under the model's own names.
    strategy = {f"momentum/{key}": np.zeros_like(value) for key, value in model.items()}
    save_checkpoint(path, Checkpoint(3, model, RunConfig().to_flat(), "roll", strategy))


def as_model_safetensors(weights: Weights, path: Path) -> None:
    from server_app.callbacks.latest_model import LatestModel
    from tests.server_app.test_callbacks import _result

    arrays = ArrayRecord({key: Array(value.numpy()) for key, value in weights.items()})
    result = _result(1)
    object.__setattr__(result, "arrays", arrays)
    LatestModel(path, ("a",), RunConfig()).write(result)


FORMS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "zip": (".pt", as_zip),
    "legacy": (".pth", as_legacy),
    "safetensors": (".safetensors", as_safetensors),
    "checkpoint": (".safetensors", as_checkpoint),
    "model.safetensors": (".safetensors", as_model_safetensors),
}
PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.net.", "encoder_q.")


def written(weights: Any, tmp_path: Path, form: str = "zip") -> Path:
    suffix, write = FORMS[form]
    path = tmp_path / f"weights{suffix}"
    write(weights, path)
    return path


def load(path: Path, name: str = "cnn", networks: int = 1) -> Weights:
    model = build_model(name, 14, seed=1, networks=networks)
    load_pretrained(model, name, str(path))
    return {key: value for key, value in model.state_dict().items() if "fc." not in key}


def refused(path: Path, name: str = "cnn") -> str:
    """The one sentence; the model is as it was."""
    model, untouched = build_model(name, 14, seed=1), build_model(name, 14, seed=1).state_dict()
    with pytest.raises(ConfigError) as caught:
        load_pretrained(model, name, str(path))
    assert all(torch.equal(value, untouched[key]) for key, value in model.state_dict().items())
    sentence = str(caught.value)
    assert sentence.isprintable(), sentence
    start = f"run config: 'pretrained' is '{path}', which "
    end = (
        "; it must be a file of torch.save or safetensors, or a run's model.safetensors or checkpoint, with weights"
        f" of a {name}."
    )
    assert sentence.startswith(start), sentence
    assert sentence.endswith(end), sentence
    return sentence[len(start) : -len(end)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    weights = weights_of()
    loaded = load(written(weights, tmp_path, form))
    assert len(loaded) == len(weights) - 2
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "checkpoint"])
def test_prefixes_in_every_form(form: str, prefix: str, tmp_path: Path) -> None:
    weights = weights_of()
    path = written({prefix + key: value for key, value in weights.items()}, tmp_path, form)
    assert torch.equal(load(path)["conv2.weight"], weights["conv2.weight"])


def test_a_prefix_inside_names(tmp_path: Path) -> None:
    """Only a part of the model was compiled."""
    weights = weights_of("resnet18")
    renamed = {key.replace("layer1.", "layer1._orig_mod."): value for key, value in weights.items()}
    assert torch.equal(
        load(written(renamed, tmp_path), "resnet18")["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"]
    )


@pytest.mark.parametrize("wrapper", [*WRAPPERS, "whatever"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_wrappers(form: str, wrapper: str, tmp_path: Path) -> None:
    weights = weights_of()
    inner = OrderedDict((f"module.{key}", value) for key, value in weights.items())
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    path = written({"epoch": 3, "optimizer": optimizer, wrapper: inner}, tmp_path, form)
    assert torch.equal(load(path)["conv2.weight"], weights["conv2.weight"])
    path = written({"checkpoint": {wrapper: {"model": inner}}} if wrapper in WRAPPERS else inner, tmp_path, form)
    if wrapper not in WRAPPERS:
        assert torch.equal(load(path)["conv2.weight"], weights["conv2.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights_of().items()}
    loaded = load(written(weights, tmp_path))
    assert loaded["conv1.weight"].dtype == torch.float32
    assert torch.equal(loaded["conv1.weight"], weights["conv1.weight"].float())


def test_several_networks_get_their_own_weights_or_all_the_same(tmp_path: Path) -> None:
    two = weights_of(networks=2)
    both, one = load(written(two, tmp_path), networks=2), load(written(two, tmp_path))
    for number in (0, 1):
        name = f"networks.{number}.conv1.weight"
        assert torch.equal(both[name], two[name])
    assert torch.equal(one["conv1.weight"], two["networks.0.conv1.weight"])
    single = weights_of()
    shared = load(written(single, tmp_path), networks=2)
    assert torch.equal(shared["networks.1.conv1.weight"], single["conv1.weight"])


class Bare(torch.nn.Module):
    """Saved whole, as beginners do."""


def compressed() -> bytes:
    """What a small file can grow into: 40 MB of zeros in 40 kB."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(10_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return packed.getvalue()


def a_zip() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo\x1b[31m.jpg", b"x")
    return archive.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "begins with '<!DOCTYPE html><html>'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "begins with 'version https://git-lfs.'"),
        (b"\x1b[31mred", "begins with the bytes 1b 5b 33 31 6d"),
        (b"\x00" * 64, "begins with the bytes 00 00"),
        (b"\x89HDF\r\n\x1a\n", "begins with the bytes 89 48 44 46"),
        (b"PK\x03\x04 and no more", "is a zip archive that is damaged or cut off"),
        (a_zip(), r"not one of torch.save: it holds 'photo\x1b[31m.jpg'"),
        (compressed(), "is a compressed archive"),
        (b"\x80\x02}q\x00.", "looks like a file of torch.save, but is damaged or cut off"),
        (b"\x10\0\0\0\0\0\0\0{'no json': }", "looks like a safetensors file, but is damaged or cut off"),
        (b"\xff" * 8 + b"{", "looks like a safetensors file"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_other_files_are_named_for_what_they_are(tmp_path: Path, suffix: str, content: bytes, what: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert what in refused(path)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.zeros(3), "holds one tensor without a name"),
        ([torch.zeros(3)], "holds a list, not a state dict"),
        (7, "holds an int"),
        ({}, "holds an empty dict"),
        ({"epoch": 3, "lr": 0.1}, "holds a dict of 'epoch', 'lr', not a state dict"),
        ({"a": {"x": torch.zeros(1)}, "b": {"y": torch.zeros(1)}}, "holds a dict of 'a', 'b'"),
        ({0: torch.zeros(1)}, "holds a dict of 0"),
        ({"w": torch.zeros(2, 3)}, "'conv1.weight' is missing (the file holds 1 tensors: 'w' 2x3)"),
        ({"evil\n\x1b[31m": torch.zeros(2)}, r"'evil\n\x1b[31m' 2"),
        (Bare(), "holds more than tensors, namely 'tests.learning.test_weights_file.Bare', which is not loaded"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_other_contents_are_named_for_what_they_are(form: str, value: Any, what: str, tmp_path: Path) -> None:
    assert what in refused(written(value, tmp_path, form))


def changed(**values: Tensor) -> Weights:
    return {**weights_of(), **{key.replace("__", "."): value for key, value in values.items()}}


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (changed(bn1__bias=torch.full((16,), torch.nan)), "holds a value in 'bn1.bias' that is not finite"),
        (changed(bn1__bias=torch.full((16,), 1e300, dtype=torch.float64)), "in 'bn1.bias' that is not finite"),
        (changed(bn1__bias=torch.ones(16, dtype=torch.int8)), "holds 'bn1.bias' as int8, not as floats"),
        (changed(bn1__bias=torch.ones(16, dtype=torch.complex64)), "holds 'bn1.bias' as complex64"),
        (changed(bn1__bias=torch.ones(16, dtype=torch.bool)), "holds 'bn1.bias' as bool"),
        (changed(bn1__bias=torch.ones(16).to_sparse()), "holds 'bn1.bias' as a sparse_coo tensor"),
        (changed(bn1__bias=torch.ones(16, device="meta")), "holds 'bn1.bias' as a meta tensor"),
        (changed(bn1__bias=torch.ones(1).expand(10**9)), "'bn1.bias' is 1000000000 instead of 16"),
        (changed(bn1__bias=torch.ones(4, 4)), "'bn1.bias' is 4x4 instead of 16"),
        (changed(extra=torch.ones(4)), "it has 'extra' as well"),
        (changed(module__bn1__bias=torch.ones(16)), "holds 'bn1.bias' twice, under different prefixes"),
        (
            weights_of("resnet18"),
            "does not hold a cnn: 'conv1.weight' is 64x3x7x7 instead of 16x3x3x3 (the file holds a resnet18)",
        ),
        (
            {f"{who}.{key}": value for who in ("student", "teacher") for key, value in weights_of().items()},
            "holds 2 networks, which have 'student.conv1.weight', 'teacher.conv1.weight'",
        ),
    ],
)
def test_weights_that_do_not_fit(weights: Weights, what: str, tmp_path: Path) -> None:
    assert what in refused(written(weights, tmp_path))


def test_a_classifier_does_not_matter(tmp_path: Path) -> None:
    weights = changed(fc__weight=torch.full((1000, 64), torch.nan), fc__bias=torch.ones(3, dtype=torch.int8))
    assert torch.equal(load(written(weights, tmp_path))["conv1.weight"], weights["conv1.weight"])


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == "is not a file"
    assert refused(tmp_path / "none.pt") == "does not exist"


def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit.script"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    assert "is a TorchScript archive, which holds code" in refused(path)


@pytest.mark.parametrize("form", FORMS)
def test_damage_ends_in_one_sentence_or_is_harmless(form: str, tmp_path: Path) -> None:
    """Cut off, bytes changed, runs of zeros, parts moved: 100 of each form from one seed."""
    path = written(weights_of(), tmp_path, form)
    whole, rng = path.read_bytes(), random.Random(form)
    model, sentences = build_model("cnn", 14, seed=1), []
    for _ in range(100):
        path.write_bytes(damaged(whole, rng))
        try:
            load_pretrained(model, "cnn", str(path))
        except ConfigError as error:
            sentences.append(str(error))
        assert all(value.isfinite().all() for value in model.state_dict().values())
    assert len(sentences) > 20
    for sentence in sentences:
        assert re.fullmatch(r"run config: 'pretrained' is .* with weights of a cnn\.", sentence), sentence
        assert sentence.isprintable(), sentence


def damaged(content: bytes, rng: random.Random) -> bytes:
    data, kind = bytearray(content), rng.randrange(5)
    head = rng.random() < 0.6  # names and sizes stand in the first few thousand bytes, or in the last
    place = rng.choice([rng.randrange(3000), len(data) - rng.randrange(1, 3000)]) if head else rng.randrange(len(data))
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[place : place + 40] = bytes(40)
    elif kind == 3:
        data[place : place + 8] = rng.randbytes(8)
    else:
        data[place:place] = data[: rng.randrange(100)]
    return bytes(data)
