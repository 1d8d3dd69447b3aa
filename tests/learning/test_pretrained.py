"""Initial weights from files, and the errors about files that hold none."""

import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from config.run_config import ConfigError
from learning.pretrained import load_pretrained
from task import Heads, build_model


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in build_model("resnet18", 1000, seed=8).state_dict().items()}


def _save(weights: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_the_body_is_loaded_and_the_head_stays_fresh(
    tmp_path: Path, weights: dict[str, torch.Tensor], suffix: str
) -> None:
    model, untouched = build_model("resnet18", 14, seed=1), build_model("resnet18", 14, seed=1)
    load_pretrained(model, "resnet18", str(_save(weights, tmp_path / f"weights{suffix}")))
    for name, value in model.state_dict().items():
        expected = untouched.state_dict()[name] if name.startswith("fc.") else weights[name]
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("wrap", ["state_dict", "model", "module"])
def test_wrapped_and_prefixed_state_dicts_are_understood(
    tmp_path: Path, weights: dict[str, torch.Tensor], wrap: str
) -> None:
    wrapped: Any = {f"module.{k}": v for k, v in weights.items()} if wrap == "module" else {wrap: weights, "epoch": 3}
    model = build_model("resnet18", 14, seed=1)
    load_pretrained(model, "resnet18", str(_save(wrapped, tmp_path / "weights.pt")))
    assert torch.equal(model.state_dict()["conv1.weight"], weights["conv1.weight"])


def test_old_files_without_step_counters_are_fine(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    old = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    load_pretrained(build_model("resnet18", 14, seed=1), "resnet18", str(_save(old, tmp_path / "old.pth")))


def test_the_small_network_takes_a_file_that_fits_and_has_no_imagenet_weights(tmp_path: Path) -> None:
    trained = {name: value.clone() for name, value in build_model("cnn", 9, seed=8).state_dict().items()}
    model, untouched = build_model("cnn", 14, seed=1), build_model("cnn", 14, seed=1)
    with pytest.raises(
        ConfigError, match="'pretrained' is 'imagenet', but there are no such weights for the 'model' cnn"
    ):
        load_pretrained(model, "cnn", "imagenet")
    load_pretrained(model, "cnn", str(_save(trained, tmp_path / "cnn.safetensors")))
    for name, value in model.state_dict().items():
        assert torch.equal(value, untouched.state_dict()[name] if name.startswith("fc.") else trained[name]), name
    with pytest.raises(ConfigError, match="does not hold a resnet18"):
        load_pretrained(build_model("resnet18", 9, seed=1), "resnet18", str(tmp_path / "cnn.safetensors"))


def test_another_architecture_is_refused_and_changes_nothing(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = str(_save(weights, tmp_path / "weights.pt"))
    model, untouched = build_model("resnet34", 14, seed=1), build_model("resnet34", 14, seed=1)
    expected = (
        f"run config: 'pretrained' is '{path}', which does not hold a resnet34: 'layer1.2.conv1.weight' is missing (the"
        " file holds a resnet18); it must be a file of torch.save or safetensors, or a run's model.safetensors or"
        " checkpoint, with weights of a resnet34."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        load_pretrained(model, "resnet34", path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, untouched.state_dict()[name])


def test_weights_of_another_stem_are_refused_with_what_they_are(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    photos = str(_save(weights, tmp_path / "photos.pt"))
    small = build_model("resnet18", 5, seed=2, stem="small")
    path = str(_save(dict(small.state_dict()), tmp_path / "small.pt"))
    refused = (
        "does not hold a resnet18: 'conv1.weight' is {} instead of {} \\(the file holds a resnet18 with stem='{}'\\)"
    )
    with pytest.raises(ConfigError, match=refused.format("64x3x3x3", "64x3x7x7", "small")):
        load_pretrained(build_model("resnet18", 14, seed=1), "resnet18", path)
    fresh = build_model("resnet18", 14, seed=1, stem="small")
    with pytest.raises(ConfigError, match=refused.format("64x3x7x7", "64x3x3x3", "imagenet")):
        load_pretrained(fresh, "resnet18", photos)
    load_pretrained(fresh, "resnet18", path)
    assert torch.equal(fresh.get_parameter("conv1.weight"), small.get_parameter("conv1.weight"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv1.weight": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(
        ConfigError,
        match="holds more than tensors, namely 'getattr', which is not loaded since it could run code",
    ):
        load_pretrained(build_model("resnet18", 14, seed=1), "resnet18", str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


def test_without_internet_the_error_explains_how_to_pass_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def offline(*_: Any, **__: Any) -> Any:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nonexistent")
    monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"set pretrained='/absolute/path/resnet50-.*\.pth'"):
        load_pretrained(build_model("resnet50", 14, seed=1), "resnet50", "imagenet")


HEADS = (("types", 3),)


@pytest.mark.parametrize(("theirs", "ours"), [(HEADS, ()), ((), HEADS), (HEADS, (("types", 5), ("others", 2)))])
@pytest.mark.parametrize("networks", [1, 2])
def test_further_heads_in_the_file_or_the_model_are_no_obstacle(
    tmp_path: Path, theirs: Heads, ours: Heads, networks: int
) -> None:
    """They stay fresh like the classifier."""
    trained = {name: value.clone() for name, value in build_model("cnn", 9, 8, networks, theirs).state_dict().items()}
    model, untouched = (build_model("cnn", 14, 1, networks, ours) for _ in range(2))
    load_pretrained(model, "cnn", str(_save(trained, tmp_path / "run.safetensors")))
    for name, value in model.state_dict().items():
        fresh = "fc." in name or "further_heads." in name
        assert torch.equal(value, untouched.state_dict()[name] if fresh else trained[name]), name
    with pytest.raises(ConfigError, match=r"does not hold a resnet18: 'conv1.weight' is .* \(the file holds a cnn\)"):
        load_pretrained(build_model("resnet18", 14, 1, heads=ours), "resnet18", str(tmp_path / "run.safetensors"))
