"""ResNets (He et al., 2016) with torchvision's names, initial weights and results, bit for bit, without torchvision.

`import torchvision` brings torch's compiler, sympy and triton with it: two seconds and 165 MiB in each process, and on
real nodes every message starts one. A test compares each network with torchvision's.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None, kind: "Kind") -> None:
        super().__init__()
        self.conv1 = convolution(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = convolution(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 3x3 convolution, which has the stride, between two 1x1 convolutions, around which the input is added."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None, kind: "Kind") -> None:
        super().__init__()
        width = planes * kind.width // 64 * kind.groups
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride, kind.groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, planes * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Kind:
    """One architecture.

    Attributes:
        block: What it is built of.
        stages: The number of blocks of 64, 128, 256 and 512 planes.
        groups: Of the 3x3 convolutions (ResNeXt, Xie et al., 2017).
        width: Channels of a group in the first stage (Wide ResNet, Zagoruyko and Komodakis, 2016).
    """

    block: type[BasicBlock] | type[Bottleneck]
    stages: tuple[int, int, int, int]
    groups: int = 1
    width: int = 64


KINDS = {
    "resnet18": Kind(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Kind(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Kind(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Kind(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Kind(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Kind(Bottleneck, (3, 4, 6, 3), groups=32, width=4),
    "resnext101_32x8d": Kind(Bottleneck, (3, 4, 23, 3), groups=32, width=8),
    "resnext101_64x4d": Kind(Bottleneck, (3, 4, 23, 3), groups=64, width=4),
    "wide_resnet50_2": Kind(Bottleneck, (3, 4, 6, 3), width=128),
    "wide_resnet101_2": Kind(Bottleneck, (3, 4, 23, 3), width=128),
}


class ResNet(nn.Module):
    """A stem, four stages of blocks, and a classifier ``fc`` of their mean over the image.

    ImageNet's stem leaves a quarter of an image's side; the small one leaves all of it, as in He et al.'s networks for
    CIFAR (section 4.2) and the wider ones that most code for CIFAR has: a 3x3 convolution in place of 7x7 and pooling.
    """

    def __init__(self, kind: Kind, num_classes: int, small_stem: bool = False) -> None:
        super().__init__()
        self.conv1 = convolution(3, 64, 3) if small_stem else convolution(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(kind, 0, 64)
        self.layer2 = stage(kind, 1, 64 * kind.block.expansion)
        self.layer3 = stage(kind, 2, 128 * kind.block.expansion)
        self.layer4 = stage(kind, 3, 256 * kind.block.expansion)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * kind.block.expansion, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, height, width) float32 to (n, classes) logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


class Builder(Protocol):
    """Builds a network for a number of classes."""

    def __call__(self, num_classes: int, small_stem: bool = False) -> nn.Module: ...


def resnet(name: str) -> Builder:
    """What builds one of `KINDS`.

    The last BatchNorm of each residual block starts at zero (Goyal et al., 2017, section 5.1), which makes a ResNet-50
    trained from scratch learn within a few hundred steps; pretrained weights overwrite it.
    """
    kind = KINDS[name]
    return lambda num_classes, small_stem=False: ResNet(kind, num_classes, small_stem)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """One that keeps the size of an image, or divides it by `stride`."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False)


def stage(kind: Kind, number: int, inputs: int) -> nn.Sequential:
    """A stage's blocks, the first of which halves the image except in stage 0."""
    planes, stride = 64 << number, 2 if number else 1
    outputs = planes * kind.block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    # Built in the order of torchvision, since each layer draws its initial weights from the global generator.
    blocks = [kind.block(inputs, planes, stride, downsample, kind)]
    blocks += [kind.block(outputs, planes, 1, None, kind) for _ in range(kind.stages[number] - 1)]
    return nn.Sequential(*blocks)


def _initialise(network: ResNet) -> None:
    """Draw all convolutions again, as He et al. (2015) do; BatchNorm starts at one, and ``fc`` stays as PyTorch's."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    for block in network.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
        elif isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)


# What `models.build` calls.
resnet18 = resnet("resnet18")
resnet34 = resnet("resnet34")
resnet50 = resnet("resnet50")
resnet101 = resnet("resnet101")
resnet152 = resnet("resnet152")
resnext50_32x4d = resnet("resnext50_32x4d")
resnext101_32x8d = resnet("resnext101_32x8d")
resnext101_64x4d = resnet("resnext101_64x4d")
wide_resnet50_2 = resnet("wide_resnet50_2")
wide_resnet101_2 = resnet("wide_resnet101_2")
