"""Networks of timm by its names, and the sentences about those that cannot be used."""

import re
import sys

import pytest
import timm
import torch
from torch import nn

from config.check import examine
from config.errors import ConfigError
from models import build, has_batchnorm
from task import build_model, classifier, needs_two_images
from tests.odd_values import is_a_sentence

VIT = "timm:vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("name", "side"),
    [(VIT, 32), (f"{VIT}.augreg_in21k_ft_in1k", 48), ("timm:resnet18", 33), ("timm:convnext_atto", 32),
     ("timm:mobilenetv3_small_050", 40), ("timm:mixer_s32_224", 64)],
)  # fmt: skip
def test_networks_of_timm_answer_and_end_as_timm_says(name: str, side: int) -> None:
    before = torch.get_rng_state()
    network, same = (build_model(name, 7, seed=1, heads=(("types", 4),), image_size=side) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in network.state_dict().items())
    last = network.get_classifier()  # type: ignore[operator]
    assert classifier(network) is last
    assert last.out_features == 7
    with torch.no_grad():
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_weights_are_those_that_timm_draws() -> None:
    torch.manual_seed(5)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=32).state_dict()
    torch.manual_seed(5)
    ours = build(VIT, 7, 32).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize(
    ("name", "side", "sentence"),
    [
        (
            "timm:resnet_18",
            32,
            "has no such network (did you mean 'timm:resnet18'?); `timm.list_models()` has all names.",
        ),
        ("timm:qqqq", 32, "has no such network; `timm.list_models()` has all names."),
        ("timm:resnet18.foo", 32, "timm has no weights of this tag; those of resnet18 are a1_in1k, "),
        ("timm:levit_128s", 64, "whose classifier is a tuple instead of one linear layer; it must be another one."),
        ("timm:convnext_atto", 16, "which does not take images of 'image-size' 16: "),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(name: str, side: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        build_model(name, 7, seed=1, image_size=side)
    assert is_a_sentence(str(caught.value))


def test_batchnorm_is_found_without_the_table() -> None:
    assert has_batchnorm("timm:resnet18", 32)
    assert needs_two_images("timm:resnet18", 32)
    assert not needs_two_images("timm:resnet18", 33)
    assert not has_batchnorm(VIT, 32)
    assert not needs_two_images(VIT, 32)
    with pytest.raises(ConfigError, match="has no such network"):
        needs_two_images("timm:qqqq", 32)


def test_without_timm_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="which needs timm, and that is not installed here: `pip install"):
        build_model(VIT, 7, seed=1, image_size=32)
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = examine({"model": VIT})[1]
    assert "`pip install timm`" in problem
    assert is_a_sentence(problem)


class Named(nn.Module):
    """A network whose classifier is not its last linear layer, and which says so as timm's do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.projection = nn.Linear(4, 4)

    def get_classifier(self) -> nn.Module:
        return self.head


def test_a_network_that_names_its_classifier_is_believed() -> None:
    network = Named()
    assert classifier(network) is network.head
