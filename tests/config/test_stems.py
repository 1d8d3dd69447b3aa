"""When a network has the stem for small images, and what recorded configs without the key mean."""

from typing import Any

import pytest

from config.architectures import ARCHITECTURES
from config.check import differences, examine
from config.recorded import as_recorded
from config.run_config import RunConfig
from config.stems import has_small_stem, stem_of, usual_stem, with_stem
from models.resnet import KINDS


@pytest.mark.parametrize(
    ("config", "stem"),
    [
        ({"model": "resnet18", "image_size": 32}, "small"),
        ({"model": "wide_resnet50_2", "image_size": 16}, "small"),
        ({"model": "resnet18", "image_size": 33}, "imagenet"),
        ({"model": "resnet18", "image_size": 32, "pretrained": "imagenet"}, "imagenet"),
        ({"model": "resnet18", "image_size": 32, "pretrained": "/some/weights.pt"}, "imagenet"),
        ({"model": "resnet18", "image_size": 32, "pretrained": "/some/weights.pt", "stem": "small"}, "small"),
        ({"model": "resnet18", "image_size": 32, "stem": "imagenet"}, "imagenet"),
        ({"model": "resnet18", "image_size": 64, "stem": "small"}, "small"),
        ({"model": "cnn", "image_size": 32}, "imagenet"),
        ({"model": "mobilenet_v2", "image_size": 32}, "imagenet"),
        ({"model": "timm:resnet18", "image_size": 32}, "imagenet"),
        ({}, "imagenet"),
    ],
)
def test_auto_is_small_for_fresh_resnets_of_small_images(config: dict[str, Any], stem: str) -> None:
    assert stem_of(RunConfig(**config)) == with_stem(RunConfig(**config)).stem == stem


def test_our_resnets_have_one_and_no_other_network() -> None:
    assert [name for name in ARCHITECTURES if has_small_stem(name)] == list(KINDS)
    assert not has_small_stem("timm:resnet18")


@pytest.mark.parametrize("model", ["cnn", "densenet121", "timm:resnet18"])
def test_a_network_without_one_is_refused_with_the_names_of_those_that_have_it(model: str) -> None:
    _, problems = examine({"model": model, "stem": "small", "image-size": 32})
    found = [problem for problem in problems if "'stem'" in problem]
    assert found == [
        f"run config: 'stem' is 'small', which the 'model' {model} does not have; it must be auto or imagenet, or the"
        f" 'model' one of {', '.join(KINDS)}."
    ]


def test_weights_of_another_stem_are_refused() -> None:
    _, problems = examine({"model": "resnet18", "stem": "small", "image-size": 32, "pretrained": "imagenet"})
    (problem,) = problems
    assert "are of a resnet18 with ImageNet's stem; 'stem' must be auto or imagenet" in problem


def test_what_auto_means_is_resolved_before_a_run_and_named_only_if_it_was_chosen() -> None:
    config, problems = examine({"model": "resnet18", "image-size": 32})
    assert (config.stem, problems) == ("small", [])
    assert "stem" not in differences(config)
    chosen, _ = examine({"model": "resnet18", "image-size": 32, "stem": "imagenet"})
    assert differences(chosen)["stem"] == "imagenet"


def test_a_command_that_repeats_a_run_names_a_stem_that_auto_would_not_choose() -> None:
    config = RunConfig(model="resnet18", image_size=32, stem="imagenet").to_flat()
    assert usual_stem(config) == "auto" != config["stem"]
    for own in ("small", "auto"):
        assert usual_stem({**config, "stem": own}) == own


def test_configs_of_versions_without_the_key_had_imagenets_stem() -> None:
    old = RunConfig(model="resnet18", image_size=32).to_flat()
    del old["stem"]
    assert stem_of(RunConfig.from_flat(as_recorded(old))) == "imagenet"
    assert as_recorded({"stem": "small"})["stem"] == "small"
