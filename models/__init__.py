"""The networks that can be trained: ours, torchvision's and timm's; `config.architectures` has the names."""

from importlib import import_module

import torch
from torch import nn

from config.architectures import ARCHITECTURES, TIMM


def build(name: str, num_classes: int, image_size: int, stem: str = "imagenet") -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

    Args:
        name: A key of `config.architectures.ARCHITECTURES`, or ``timm:`` and a name of timm's.
        num_classes: Outputs.
        image_size: Side of the input; it matters to networks that are built for one size.
        stem: ``small`` for the first layers that some have for small images (`config.stems`); else ``imagenet``.

    Raises:
        ConfigError: A network of timm's that there is not, or that cannot be used.
    """
    if name.startswith(TIMM):
        from models import from_timm

        return from_timm.build(name, num_classes, image_size)
    if module := ARCHITECTURES[name].module:
        options = {"small_stem": True} if stem == "small" else {}
        network: nn.Module = getattr(import_module(module), name)(num_classes, **options)
        return network
    from models import from_torchvision

    return from_torchvision.build(name, num_classes, image_size)


def check_installed(name: str) -> None:
    """Check that this machine has the library that a network is from.

    Raises:
        ConfigError: timm is not installed.
    """
    if name.startswith(TIMM):
        from models import from_timm

        from_timm.imported()


def has_batchnorm(name: str, image_size: int) -> bool:
    """Whether a network has BatchNorm; one of timm's is built for the answer, without memory for its weights.

    Raises:
        ConfigError: timm has no such network.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].batchnorm
    from models import from_timm

    with torch.device("meta"):
        network: nn.Module = from_timm.created(name, 2, image_size)
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
