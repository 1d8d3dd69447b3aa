"""Weights of torchvision's and timm's networks: by name, and from files in the forms that people have."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from config.run_config import ConfigError, RunConfig
from learning.pretrained import load_pretrained, warnings_of_normalization
from task import build_model, classifier

VIT = "timm:vit_tiny_patch16_224"


def _trained(name: str, image_size: int = 64, classes: int = 9, **options: Any) -> dict[str, Tensor]:
    """Weights that no fresh network has, statistics of BatchNorm included."""
    state = build_model(name, classes, seed=8, image_size=image_size, **options).state_dict()
    return {key: value + 1 if value.ndim == 1 else value.clone() for key, value in state.items()}


def _saved(state: Any, folder: Path) -> str:
    torch.save(state, folder / "weights.pt")
    return str(folder / "weights.pt")


def _outputs(model: nn.Module) -> str:
    last = classifier(model)
    return next(f"{name}." for name, layer in model.named_modules() if layer is last)


def _check_filled(model: nn.Module, fresh: nn.Module, expected: dict[str, Tensor]) -> None:
    outputs, initial = (_outputs(model), "further_heads."), fresh.state_dict()
    for key, value in model.state_dict().items():
        wanted = initial if key.startswith(outputs) else expected
        assert torch.equal(value, wanted[key].to(value.dtype)), key


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", VIT, "timm:resnet18"],
)
@pytest.mark.parametrize("form", ["plain", "module.", "nested", "half", "backbone.", "another classifier"])
def test_a_file_fills_all_but_the_classifier(tmp_path: Path, name: str, form: str) -> None:
    heads = (("types", 3),)
    model, fresh = (build_model(name, 14, seed=1, heads=heads, image_size=64) for _ in range(2))
    state = _trained(name, heads=heads)
    saved: Any = state
    if form.endswith("."):
        saved = {form + key: value for key, value in state.items()}
    elif form == "nested":
        saved = {"model": {"state_dict": state}, "epoch": 3}
    elif form == "half":
        saved = state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    elif form == "another classifier":  # such as two layers in place of one
        last = _outputs(model)
        saved = {key: value for key, value in state.items() if not key.startswith(last)}
        saved |= {
            f"{last}0.weight": torch.ones(5, 4),
            f"{last}2.weight": torch.ones(3, 5),
            f"{last}2.bias": torch.ones(3),
        }
    load_pretrained(model, name, _saved(saved, tmp_path))
    _check_filled(model, fresh, state)


def test_torchvisions_file_of_a_squeezenet_has_a_convolution_at_its_end(tmp_path: Path) -> None:
    theirs = torchvision.models.squeezenet1_1().state_dict()
    model = build_model("squeezenet1_1", 14, seed=1)
    load_pretrained(model, "squeezenet1_1", _saved(theirs, tmp_path))
    assert torch.equal(model.state_dict()["features.0.weight"], theirs["features.0.weight"])


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_auxiliary_classifiers_are_dropped(tmp_path: Path) -> None:
    theirs = torchvision.models.googlenet(init_weights=False, aux_logits=True).state_dict()
    model, fresh = (build_model("googlenet", 14, seed=1) for _ in range(2))
    load_pretrained(model, "googlenet", _saved(theirs, tmp_path))
    _check_filled(model, fresh, theirs)


def test_old_names_in_torchvisions_files_are_understood(tmp_path: Path) -> None:
    """Those of its DenseNets (``norm.1``) and of its Vision Transformers (``mlp.linear_1``)."""
    state = _trained("densenet121")
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value for key, value in state.items()}
    assert set(old) - set(state)
    model, fresh = (build_model("densenet121", 14, seed=1) for _ in range(2))
    load_pretrained(model, "densenet121", _saved(old, tmp_path))
    _check_filled(model, fresh, state)

    vit = _small_vit(32)
    old = {key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
           for key, value in vit.state_dict().items()}  # fmt: skip
    assert set(old) - set(vit.state_dict())
    model = _small_vit(32)
    fresh = _small_vit(32)
    fresh.load_state_dict(model.state_dict())
    load_pretrained(model, "vit_b_16", _saved(old, tmp_path))
    _check_filled(model, fresh, dict(vit.state_dict()))


def _small_vit(side: int) -> nn.Module:
    network = VisionTransformer(
        image_size=side, patch_size=16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=5
    )
    nn.init.normal_(network.class_token)
    return network


def test_positions_of_a_vit_are_interpolated_as_torchvision_does(tmp_path: Path) -> None:
    large, small = _small_vit(64), _small_vit(32)
    fresh = _small_vit(32)
    fresh.load_state_dict(small.state_dict())
    expected = interpolate_embeddings(32, 16, large.state_dict())
    load_pretrained(small, "vit_b_16", _saved(_small_vit_state(large), tmp_path))
    _check_filled(small, fresh, dict(expected))
    assert small.get_parameter("encoder.pos_embedding").shape == (1, 5, 16)


def _small_vit_state(network: nn.Module) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    "positions", [torch.ones(1, 12, 16), torch.ones(2, 17, 16), torch.ones(17, 16), torch.ones(1, 5, 8)]
)
def test_positions_that_are_not_those_of_a_square_are_refused(tmp_path: Path, positions: Tensor) -> None:
    state = {**_small_vit(64).state_dict(), "encoder.pos_embedding": positions}
    with pytest.raises(
        ConfigError, match=r"does not hold a vit_b_16: 'encoder.pos_embedding' is [\dx]+ instead of 1x5x16"
    ):
        load_pretrained(_small_vit(32), "vit_b_16", _saved(state, tmp_path))


def test_positions_of_timms_networks_are_interpolated_as_timm_does(tmp_path: Path) -> None:
    path = _saved(_trained(VIT, 96), tmp_path)
    about = {"file": path, "num_classes": 9}
    theirs = timm.create_model(
        "vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=about, num_classes=9, img_size=32
    ).state_dict()
    model, fresh = (build_model(VIT, 14, seed=1, image_size=32) for _ in range(2))
    load_pretrained(model, VIT, path)
    _check_filled(model, fresh, theirs)


def test_constants_of_a_swin_are_neither_wanted_nor_refused(tmp_path: Path) -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in _trained("swin_v2_t").items()}
    constants = [key for key in state if key.endswith(("relative_position_index", "relative_coords_table"))]
    assert constants
    for saved in (state, {key: value for key, value in state.items() if key not in constants}):
        model, fresh = (build_model("swin_v2_t", 14, seed=1) for _ in range(2))
        load_pretrained(model, "swin_v2_t", _saved(saved, tmp_path))
        _check_filled(model, fresh, {**state, **{key: fresh.state_dict()[key] for key in constants}})


@pytest.mark.parametrize(
    ("asked", "held", "said"),
    [
        ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", r"'stage2.* \(the file holds a shufflenet_v2_x1_0\)"),
        ("mobilenet_v3_small", "resnet18", r".*is missing \(the file holds a resnet18\)"),
        ("mobilenet_v3_small", "densenet121", r".*\(the file holds \d+ tensors: .* 64x3x7x7, .*\.\.\.\)"),
        (VIT, "cnn", r"'cls_token' is missing \(the file holds a cnn\)"),
    ],
)  # fmt: skip
def test_another_network_is_named_if_it_is_ours_or_a_relative(tmp_path: Path, asked: str, held: str, said: str) -> None:
    model, untouched = (build_model(asked, 14, seed=1, image_size=64) for _ in range(2))
    with pytest.raises(ConfigError, match=rf"which does not hold a {asked}: {said}"):
        load_pretrained(model, asked, _saved(_trained(held), tmp_path))
    _check_filled(model, untouched, untouched.state_dict())


@pytest.mark.parametrize(("source", "named"), [("imagenet", "V1"), ("IMAGENET1K_V2", "V2"), ("DEFAULT", "V2")])
def test_torchvisions_weights_by_name(monkeypatch: pytest.MonkeyPatch, source: str, named: str) -> None:
    state, asked = _trained("mobilenet_v3_large", classes=1000), []

    def download(weights: Any, *_: Any, **options: Any) -> Any:
        asked.append((weights.name, options["check_hash"]))
        return state

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", download)
    model, fresh = (build_model("mobilenet_v3_large", 14, seed=1) for _ in range(2))
    load_pretrained(model, "mobilenet_v3_large", source)
    assert asked == [(f"IMAGENET1K_{named}", True)]
    _check_filled(model, fresh, state)


def test_weights_that_there_are_not_are_refused_before_a_download() -> None:
    for name, source, has in (
        ("mobilenet_v3_small", "IMAGENET1K_V2", "none, DEFAULT, IMAGENET1K_V1 or a file."),
        ("vit_h_14", "imagenet", "none, DEFAULT, IMAGENET1K_SWAG_E2E_V1, IMAGENET1K_SWAG_LINEAR_V1 or a file."),
        ("cnn", "DEFAULT", "none or a file, or the 'model' one of torchvision's or timm's."),
        (VIT, "imagenet", "none, DEFAULT or a file."),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"no such weights for the 'model' {name}; it must be {has}")):
            load_pretrained(build_model("cnn", 5, seed=1), name, source)


def test_timms_own_weights_have_the_size_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model("vit_tiny_patch16_224", num_classes=1000).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    model, fresh = (build_model(VIT, 14, seed=1, image_size=32) for _ in range(2))
    before = torch.get_rng_state()
    load_pretrained(model, VIT, "DEFAULT")
    assert torch.equal(torch.get_rng_state(), before)
    positions = model.get_parameter("pos_embed")
    assert positions.shape == (1, 5, 192)
    expected = {**state, "pos_embed": resample_abs_pos_embed(state["pos_embed"], [2, 2])}
    _check_filled(model, fresh, expected)


def test_without_internet_timms_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    model, untouched = (build_model(VIT, 14, seed=1, image_size=32) for _ in range(2))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(ConfigError, match=r"timm/vit_tiny\S+ cannot be fetched \(no network\); download its model"):
        load_pretrained(model, VIT, "DEFAULT")
    _check_filled(model, untouched, untouched.state_dict())
    names = [one for one in timm.list_models("vit_*") if not timm.list_pretrained(f"{one}*")]
    with pytest.raises(ConfigError, match="but timm has no weights of"):
        load_pretrained(build_model("cnn", 5, seed=1), f"timm:{names[0]}", "DEFAULT")


@pytest.mark.parametrize(
    ("model", "pretrained", "normalization", "said"),
    [
        ("resnet50", "imagenet", "imagenet", ""),
        ("resnet50", "IMAGENET1K_V2", "clothing1m", "expect normalization='imagenet', but"),
        ("resnet50", "none", "clothing1m", ""),
        ("resnet50", "/some/file.pt", "clothing1m", ""),  # nobody knows
        ("efficientnet_v2_l", "DEFAULT", "imagenet", "expect normalization='half', but"),
        (VIT, "DEFAULT", "half", ""),
        (VIT, "DEFAULT", "imagenet", "expect normalization='half', but 'normalization' is 'imagenet'."),
        ("timm:vit_base_patch16_clip_224.openai", "DEFAULT", "imagenet", "mean [0.48145466, "),
    ],
)  # fmt: skip
def test_the_log_says_if_weights_expect_another_normalisation(
    model: str, pretrained: str, normalization: str, said: str
) -> None:
    config = RunConfig(model=model, pretrained=pretrained, normalization=normalization)
    lines = warnings_of_normalization(config)
    assert len(lines) == bool(said)
    assert said in "".join(lines)
