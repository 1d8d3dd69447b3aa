"""The networks that can be trained, by name; `config.choices` has the same names.

Each is a function from the number of classes to a network with fresh weights.
"""

from collections.abc import Callable

from torch import nn

from models.resnet import resnet
from models.small_cnn import small_cnn

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "cnn": small_cnn,
    "resnet18": resnet("resnet18"),
    "resnet34": resnet("resnet34"),
    "resnet50": resnet("resnet50"),
}
