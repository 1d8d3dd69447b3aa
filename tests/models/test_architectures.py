"""The table of networks says of each what torchvision and the network itself say."""

import contextlib
import random
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from config.architectures import ARCHITECTURES, FAMILIES, Family, needs_two_images, weights_of
from config.run_config import RunConfig
from data.normalization import NORMALIZATIONS
from models import build, has_batchnorm
from task import classifier

DRAWING = (nn.Dropout, nn.Dropout2d, StochasticDepth)


@contextlib.contextmanager
def unwritten() -> Iterator[None]:
    """Networks are built without initial weights, which takes a tenth of the time and touches no memory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in dir(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                patch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield


def check_as_described(name: str) -> None:
    """Check one network, at the smallest side and around the one up to which BatchNorm needs two images."""
    family = ARCHITECTURES[name]
    with unwritten():
        network = build(name, 7, family.smallest)
    _check_parts(name, network)
    _check_sides(family, name, network)


def _check_parts(name: str, network: nn.Module) -> None:
    family = ARCHITECTURES[name]
    assert has_batchnorm(name, 224) is any(isinstance(layer, _BatchNorm) for layer in network.modules()), name
    assert family.draws is any(isinstance(layer, DRAWING) and layer.p > 0 for layer in network.modules()), name
    last = classifier(network)
    assert isinstance(last, nn.Linear)
    assert last.out_features == 7, name


@torch.no_grad()
def _check_sides(family: Family, name: str, network: nn.Module) -> None:
    features: list[torch.Size] = []
    classifier(network).register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0].shape))
    assert network.eval()(torch.zeros(2, 3, family.smallest, family.smallest)).shape == (2, 7)
    assert features == [(2, classifier(network).in_features)]
    if family.smallest > 16 and family.multiple == 1:
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, family.smallest - 1, family.smallest - 1))
    network.train()
    if family.batchnorm and family.multiple == 1:
        for side in sorted({family.smallest, family.alone // 2, family.alone, family.alone + 1}):
            if side < family.smallest:
                continue
            refuses = pytest.raises(ValueError, match="more than 1 value per channel")
            with refuses if needs_two_images(name, side) else contextlib.nullcontext():
                network(torch.zeros(1, 3, side, side))
    side = max(family.smallest, family.alone + 1)
    before = torch.get_rng_state()
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 7)
    assert torch.equal(torch.get_rng_state(), before) is not family.draws


def test_the_table_has_torchvisions_names_and_ours() -> None:
    theirs = torchvision.models.list_models(module=torchvision.models)
    assert sorted(ARCHITECTURES) == sorted([*theirs, "cnn"])
    assert sum(len(family.names) for family in FAMILIES) == len(ARCHITECTURES)  # none is there twice


def test_the_table_has_the_names_of_torchvisions_weights() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        theirs = torchvision.models.get_model_weights(name)
        # Those of vgg16's features have no numbers in linear layers that are kept.
        assert list(weights_of(name)) == [one.name for one in theirs if one.name != "IMAGENET1K_FEATURES"], name
        assert theirs["DEFAULT"].name in weights_of(name)
        transforms = [one.transforms() for one in theirs if one.name in weights_of(name)]
        expected = NORMALIZATIONS["half" if name == "efficientnet_v2_l" else "imagenet"]
        assert {(tuple(one.mean), tuple(one.std)) for one in transforms} == {expected}
    assert weights_of("cnn") == weights_of("timm:resnet18") == ()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: next(iter(family.names)))
def test_each_family_is_as_described(family: Family) -> None:
    """All of its networks end as `task.classifier` finds it; the lightest is run."""
    names = list(family.names)
    with unwritten():
        sizes = {}
        for name in names:
            network = build(name, 7, family.smallest)
            _check_parts(name, network)
            sizes[name] = sum(value.numel() for value in network.parameters())
            del network
    lightest = min(sizes, key=sizes.__getitem__)
    if sizes[lightest] < 200e6:
        check_as_described(lightest)


@pytest.mark.parametrize("name", ["vit_b_16", "vit_b_32", "vit_h_14", "maxvit_t"])
def test_other_sides_are_refused_by_the_networks_too(name: str) -> None:
    family = ARCHITECTURES[name]
    for side in (family.smallest + 1, family.smallest + family.multiple // 2):
        with unwritten(), torch.device("meta"), pytest.raises((AssertionError, ValueError)):
            build(name, 7, side)
        assert family.problem_of_size(side)


def test_a_side_that_will_do_is_named_if_one_will_not() -> None:
    assert ARCHITECTURES["vit_b_32"].problem_of_size(16) == "a multiple of 32, such as 32"
    assert ARCHITECTURES["vit_b_16"].problem_of_size(50) == "a multiple of 16, such as 48 or 64"
    assert ARCHITECTURES["maxvit_t"].problem_of_size(1000) == "a multiple of 224, such as 896"
    assert ARCHITECTURES["inception_v3"].problem_of_size(74) == "at least 75"
    assert not ARCHITECTURES["vit_b_16"].problem_of_size(48)
    sides = random.Random(1).sample(range(16, 1025), 100)
    for name, family in ARCHITECTURES.items():
        for side in sides:
            problem = family.problem_of_size(side)
            named = [int(word) for word in problem.split(", such as ")[-1].split() if word.isdigit()]
            assert all(not family.problem_of_size(one) for one in named), (name, side)
            assert bool(problem) is bool(named)
            assert RunConfig(model=name).model == name
