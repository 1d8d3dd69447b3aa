"""A ResNet's stem for small images: what most code for CIFAR has, by its shapes, names, weights and answers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import build
from models.resnet import KINDS
from task import build_model, needs_two_images


class PlainBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, as He et al. describe them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        beside = self.downsample(x) if hasattr(self, "downsample") else x
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))) + beside)


class PlainResNet18(nn.Module):
    """ResNet-18 for CIFAR, written down a second time."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(PlainBlock(64, 64, 1), PlainBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PlainBlock(64, 128, 2), PlainBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PlainBlock(128, 256, 2), PlainBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PlainBlock(256, 512, 2), PlainBlock(512, 512, 1))
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _shaken(model: nn.Module) -> nn.Module:
    """With other weights than those it is drawn with, of which some are zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator), alpha=0.05)
    return model


def test_it_answers_as_a_plain_one_with_the_same_weights() -> None:
    ours = _shaken(build_model("resnet18", 10, seed=1, stem="small"))
    plain = PlainResNet18(10)
    plain.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for mode in (True, False):
        assert torch.allclose(ours.train(mode)(images), plain.train(mode)(images), rtol=1e-4, atol=1e-4)


def test_the_stem_keeps_the_side_of_an_image() -> None:
    model = build("resnet18", 10, 32, "small")
    sides = []
    for part in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(part).register_forward_hook(lambda *seen: sides.append(seen[2].shape[-1]))
    model(torch.zeros(2, 3, 32, 32))
    assert sides == [32, 32, 32, 16, 8, 4]  # with ImageNet's stem: 16, 8, 8, 4, 2, 1


def test_resnet18_has_as_many_parameters_as_counted_by_hand() -> None:
    """Convolutions of 9 weights a pair of channels, BatchNorm of 2 a channel."""
    stem = 3 * 64 * 9 + 2 * 64
    first = 2 * (2 * (64 * 64 * 9 + 2 * 64))
    later = sum(
        (half * full + full * full) * 9 + 2 * full * full * 9 + half * full + 5 * 2 * full
        for half, full in ((64, 128), (128, 256), (256, 512))
    )
    model = build("resnet18", 10, 32, "small")
    assert stem + first + later + 512 * 10 + 10 == 11_173_962
    assert sum(value.numel() for value in model.parameters()) == 11_173_962


@pytest.mark.parametrize("name", KINDS)
def test_all_but_the_first_convolution_is_the_same_in_every_kind(name: str) -> None:
    with torch.device("meta"):
        small, large = build(name, 5, 32, "small"), build(name, 5, 32)
    shapes = {key: value.shape for key, value in small.state_dict().items()}
    others = {key: value.shape for key, value in large.state_dict().items()}
    assert list(shapes) == list(others)
    assert {key for key in shapes if shapes[key] != others[key]} == {"conv1.weight"}
    assert (shapes["conv1.weight"], others["conv1.weight"]) == ((64, 3, 3, 3), (64, 3, 7, 7))
    assert isinstance(small.maxpool, nn.Identity)


def test_a_single_image_of_any_size_trains() -> None:
    """2 x 2 pixels are left of the smallest, where ImageNet's stem leaves one."""
    model = build("resnet18", 3, 16, "small").train()
    model(torch.zeros(1, 3, 16, 16)).sum().backward()
    assert not needs_two_images("resnet18", 16, "small")
    assert needs_two_images("resnet18", 16)
