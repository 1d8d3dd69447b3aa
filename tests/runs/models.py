"""Models: those of real runs of every kind, each of two rounds, in a second or two; and one that never trained."""

from pathlib import Path
from typing import Any

import safetensors.torch

from config.run_config import RunConfig
from config.stems import stem_of
from learning.model_facts import ModelFacts
from task import build_model
from tests.fakes import run_in_process

KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "head": {"trainable": "head"},
    "lora": {"trainable": "lora"},
    "two-networks": {"method": "co-teaching"},
    "two-networks-lora": {"method": "co-teaching", "trainable": "lora"},
    "further-heads": {"method": "xiao"},
    "frozen-batchnorm": {"batchnorm": "frozen", "normalization": "half"},
    "measured": {"normalization": "release"},
    "own-batchnorm": {"batchnorm": "local", "normalization": "clothing1m"},
    "torchvision": {"model": "mobilenet_v3_small", "image_size": 32},
    "timm-lora": {"model": "timm:test_vit", "image_size": 32, "trainable": "lora", "trainable_args": "rank=2"},
    "resnet-crops": {"model": "resnet18", "image_size": 28, "augmentation": "crop-flip"},
    "small-stem": {"model": "resnet18", "image_size": 16, "stem": "auto", "augmentation": "pad-crop-flip"},
}


def make_run(out: Path, sample: Path, name: str, **more: Any) -> Path:
    """One whose network is tiny, unless `more` says otherwise."""
    small = {"model": "cnn", "image_size": 16, "data_dir": str(sample), "local_epochs": 1}
    return run_in_process(out, run_name=name, **{**small, **more})


def write_model(path: Path, class_names: tuple[str, ...], **config: Any) -> Path:
    """A model.safetensors, with weights as they are drawn."""
    settings = RunConfig(**{"model": "cnn", "image_size": 16, **config})
    stem = stem_of(settings)
    model = build_model(settings.model, len(class_names), seed=1, image_size=settings.image_size, stem=stem)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(weights, path, ModelFacts.of(settings, class_names, model).to_metadata())
    return path
