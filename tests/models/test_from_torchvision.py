"""Networks that torchvision builds, and where they differ from what it builds by default."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from models import build
from task import Networks, build_model, classifier, networks_of
from tests.models.test_architectures import unwritten


def _theirs(name: str, **options: Any) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=7, **options)
    return network


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf", "densenet121"])
def test_initial_weights_are_torchvisions(name: str) -> None:
    torch.manual_seed(5)
    theirs = _theirs(name).state_dict()
    torch.manual_seed(5)
    ours = build(name, 7, 64).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_classifiers_have_none(name: str) -> None:
    with unwritten():
        network: Any = build(name, 7, 128)
    assert not [key for key in network.state_dict() if key.lower().startswith("aux")]
    assert network.transform_input  # from imagenet's mean and deviation to what their weights expect
    with torch.no_grad():
        assert network.train()(torch.zeros(2, 3, 128, 128)).shape == (2, 7)


def test_a_squeezenet_has_features_and_the_rest_is_torchvisions() -> None:
    torch.manual_seed(5)
    theirs: Any = _theirs("squeezenet1_1").eval()
    torch.manual_seed(5)
    ours: Any = build("squeezenet1_1", 7, 64).eval()
    features = {key: value for key, value in ours.state_dict().items() if key.startswith("features.")}
    assert all(torch.equal(theirs.state_dict()[key], value) for key, value in features.items())
    assert set(ours.state_dict()) - set(features) == {"classifier.fc.weight", "classifier.fc.bias"}
    assert 0.009 < classifier(ours).weight.std() < 0.011
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pooled = theirs.features(images).mean(dim=(2, 3))
        torch.testing.assert_close(ours(images), classifier(ours)(pooled))


@pytest.mark.parametrize(("name", "side", "positions"), [("vit_b_16", 48, 9 + 1), ("vit_b_32", 224, 49 + 1)])
def test_a_vit_is_built_for_the_size_of_the_images(name: str, side: int, positions: int) -> None:
    with unwritten():
        network = build_model(name, 7, seed=1, heads=(("types", 4),), image_size=side)
    assert network.get_parameter("encoder.pos_embedding").shape == (1, positions, 768)
    assert classifier(network) is network.get_submodule("heads.head")  # not one of our further heads
    assert network.get_parameter("further_heads.types.weight").shape == (4, 768)
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("networks", [1, 2])
def test_a_mnasnet_takes_states_without_torchvisions_version(networks: int) -> None:
    """Torchvision's own refuses them, and arrays that come with a message have none."""
    one, other = (build_model("mnasnet0_5", 7, seed=seed, networks=networks) for seed in (1, 2))
    received = {key: value.clone() for key, value in one.state_dict().items()}
    for model in (other, copy.deepcopy(other)):
        model.load_state_dict(received)
        assert all(torch.equal(value, received[key]) for key, value in model.state_dict().items())
    copied = copy.deepcopy(other)
    copied.load_state_dict({key: torch.zeros_like(value) for key, value in received.items()})
    assert not any(value.any() for value in copied.parameters())
    assert all(value.any() for value in other.parameters() if value.ndim > 1)


def test_weights_derive_from_the_seed_and_are_channels_last() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_model("mobilenet_v3_small", 7, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    first = "features.1.block.0.0.weight"
    assert torch.equal(one.get_parameter(first), same.get_parameter(first))
    assert not torch.equal(one.get_parameter(first), other.get_parameter(first))
    several = build_model("mobilenet_v3_small", 7, seed=1, networks=2)
    assert isinstance(several, Networks)
    assert torch.equal(networks_of(several)[0].get_parameter(first), one.get_parameter(first))
    weight = one.get_parameter("features.0.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
