"""Which first layers a run's network has: those for ImageNet's photos, or those for images as small as CIFAR's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from config.architectures import ARCHITECTURES
from config.rules import NAMED_WEIGHTS
from config.run_config import RunConfig
from data.text import shown

AUTO, IMAGENET, SMALL = "auto", "imagenet", "small"
LARGEST = 32  # side in pixels of the images that `auto` takes for small


def has_small_stem(model: str) -> bool:
    """Whether a network has other first layers for small images."""
    return model in ARCHITECTURES and ARCHITECTURES[model].small_stem


def auto_stem(config: Mapping[str, Any]) -> str:
    """What `auto` means for a config under its kebab-case keys; a network without a choice has ``imagenet``, its own.

    Pretrained weights belong to the layers that they were trained in, which nearly always are ImageNet's.
    """
    fresh_and_small = config["image-size"] <= LARGEST and config["pretrained"] == "none"
    return SMALL if fresh_and_small and has_small_stem(config["model"]) else IMAGENET


def stem_of(config: RunConfig) -> str:
    """``imagenet`` or ``small``."""
    return auto_stem(config.to_flat()) if config.stem == AUTO else config.stem


def with_stem(config: RunConfig) -> RunConfig:
    """The config with what `auto` means for it, which is what runs record and compare."""
    return replace(config, stem=stem_of(config))


def usual_stem(config: Mapping[str, Any]) -> str:
    """What a recorded config's stem is compared with, to see whether a command that repeats the run must name it."""
    return str(config["stem"]) if config["stem"] == auto_stem(config) else AUTO


def problem_of_stem(config: RunConfig) -> str | None:
    """Why a network cannot have the stem that is asked for, in one sentence; None if it can."""
    if config.stem != SMALL:
        return None
    if not has_small_stem(config.model):
        names = ", ".join(name for name, family in ARCHITECTURES.items() if family.small_stem)
        return (
            f"run config: 'stem' is 'small', which the 'model' {config.model} does not have; it must be auto or"
            f" imagenet, or the 'model' one of {names}."
        )
    if config.pretrained != "none" and NAMED_WEIGHTS.fullmatch(config.pretrained):
        return (
            f"run config: 'stem' is 'small', but the weights {shown(config.pretrained)} that 'pretrained' names are of"
            f" a {config.model} with ImageNet's stem; 'stem' must be auto or imagenet, or 'pretrained' none or a file."
        )
    return None
