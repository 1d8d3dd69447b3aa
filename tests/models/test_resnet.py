"""Our ResNets against torchvision's, bit for bit."""

import re

import pytest
import torch
from torch import Tensor, nn

from models.resnet import KINDS, resnet


def _theirs(name: str, classes: int) -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, zero_init_residual=True)
    return model


def _drawn(build: object, *args: object) -> nn.Module:
    torch.manual_seed(5)
    return build(*args)  # type: ignore[operator]


def test_torchvision_has_no_other_resnets() -> None:
    from torchvision.models import list_models

    assert sorted(name for name in list_models() if re.fullmatch(r"(wide_)?resne(x)?t\w+", name)) == sorted(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = resnet(name)(14), _theirs(name, 14)
    for part in ("state_dict", "named_parameters", "named_buffers"):
        expected = {key: value.shape for key, value in dict(getattr(theirs, part)()).items()}
        found = {key: value.shape for key, value in dict(getattr(ours, part)()).items()}
        assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_weights_and_steps_are_torchvisions_bit_for_bit(name: str) -> None:
    """Initial weights, logits, gradients and running statistics, in channels-last layout."""
    ours, theirs = _drawn(resnet(name), 14), _drawn(_theirs, name, 14)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    images = torch.randn(3, 3, 65, 65, generator=torch.Generator().manual_seed(1))
    for model in (ours, theirs):
        torch.manual_seed(2)
        for layer in model.modules():  # not zero, or no gradient would reach the residual branches
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
        model.to(memory_format=torch.channels_last).train()
        model(images.to(memory_format=torch.channels_last)).square().sum().backward()
    assert all(torch.equal(one, other) for one, other in zip(_results(ours), _results(theirs), strict=True))
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def _results(model: nn.Module) -> list[Tensor]:
    gradients = [value.grad for value in model.parameters()]
    assert all(value is not None and value.any() for value in gradients)
    return [*gradients, *model.buffers()]  # type: ignore[list-item]


def test_the_size_of_an_image_does_not_matter() -> None:
    model = resnet("resnet18")(5).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 48)).shape == (2, 5)
