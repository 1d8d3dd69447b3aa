"""Torchvision's classification networks by its own names; torchvision is imported when one is built.

Each takes images of the size for which it is built, has one output, and ends in a linear layer.
"""

from collections import OrderedDict
from types import MethodType
from typing import Any

from torch import nn


def build(name: str, num_classes: int, image_size: int) -> nn.Module:
    """One of `config.architectures` with fresh weights, which are drawn as torchvision draws them."""
    from torchvision import models  # two seconds and 165 MiB, which most runs need not pay for

    network: Any = models.get_model(name, weights=None, num_classes=num_classes, **_options(name, image_size))
    if name.startswith("squeezenet"):
        _end_linearly(network, num_classes)
    if name.startswith("mnasnet"):  # its own refuses states without a version, and so those of a message
        network._load_from_state_dict = MethodType(nn.Module._load_from_state_dict, network)
    return network  # type: ignore[no-any-return]


def _options(name: str, image_size: int) -> dict[str, Any]:
    if name in ("googlenet", "inception_v3"):
        # Their ImageNet weights expect inputs from -1 to 1, which they make of inputs that are normalised as imagenet.
        return {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    return {}


def _end_linearly(network: Any, num_classes: int) -> None:
    """Give a SqueezeNet features: its last layer is a convolution to classes, whose outputs it averages.

    Here the image is averaged first, and a linear layer follows, which starts as the convolution does.
    """
    classifier = nn.Linear(network.classifier[1].in_channels, num_classes)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    layers = {"dropout": nn.Dropout(0.5), "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": classifier}
    network.classifier = nn.Sequential(OrderedDict(layers))
