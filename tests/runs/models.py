"""Real runs of every kind of model, each of two rounds, in a second or two."""

from pathlib import Path
from typing import Any

from tests.fakes import run_in_process

KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "head": {"trainable": "head"},
    "lora": {"trainable": "lora"},
    "two-networks": {"method": "co-teaching"},
    "two-networks-lora": {"method": "co-teaching", "trainable": "lora"},
    "further-heads": {"method": "xiao"},
    "frozen-batchnorm": {"batchnorm": "frozen", "normalization": "half"},
    "own-batchnorm": {"batchnorm": "local", "normalization": "clothing1m"},
    "torchvision": {"model": "mobilenet_v3_small", "image_size": 32},
    "timm-lora": {"model": "timm:test_vit", "image_size": 32, "trainable": "lora", "trainable_args": "rank=2"},
    "resnet-crops": {"model": "resnet18", "image_size": 28, "augmentation": "crop-flip"},
}


def make_run(out: Path, sample: Path, name: str, **more: Any) -> Path:
    """One whose network is tiny, unless `more` says otherwise."""
    small = {"model": "cnn", "image_size": 16, "data_dir": str(sample), "local_epochs": 1}
    return run_in_process(out, run_name=name, **{**small, **more})
