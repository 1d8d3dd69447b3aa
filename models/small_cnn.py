"""A tiny network for quick trials."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn


def cnn(num_classes: int) -> nn.Module:
    """A network of some 25,000 parameters with BatchNorm, for quick trials and for measuring all but convolutions.

    Three stages of 16, 32 and 64 channels halve the image each; their average goes into ``fc``, named as a ResNet's.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, (inputs, outputs) in enumerate(pairwise((3, 16, 32, 64)), start=1):
        layers[f"conv{stage}"] = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers[f"bn{stage}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{stage}"] = nn.ReLU(inplace=True)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(64, num_classes)}
    return nn.Sequential(layers)
