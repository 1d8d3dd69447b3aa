"""Code without this app that builds a network takes its weights and answers as it does."""

import pytest
import torch

from models.outside import lines_that_build, stem_of
from task import build_model

EXAMPLES = {
    "cnn": 16,
    "resnet18": 32,
    "squeezenet1_1": 32,
    "mnasnet0_5": 32,
    "googlenet": 32,
    "vit_b_32": 64,
    "timm:test_vit": 32,
    "timm:test_resnet": 32,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_answers_as_ours(name: str) -> None:
    ours = build_model(name, 3, seed=1, image_size=EXAMPLES[name]).eval()
    sized = bool(getattr(ours, "takes_size", False))
    assert sized == (name == "timm:test_vit")
    found: dict[str, torch.nn.Module] = {}
    exec(lines_that_build(name, 3, EXAMPLES[name], takes_size=sized), {}, found)
    # Plain tensors by name, as safetensors gives them: without the versions that a state dict carries.
    found["network"].load_state_dict({key: value.clone() for key, value in ours.state_dict().items()})
    image = torch.rand(2, 3, EXAMPLES[name], EXAMPLES[name], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(found["network"].eval()(image), ours(image), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_the_small_stem_is_built_and_takes_all_weights(name: str) -> None:
    ours = build_model(name, 3, seed=1, stem="small").eval()
    found: dict[str, torch.nn.Module] = {}
    exec(lines_that_build(name, 3, 20, small_stem=True), {}, found)
    found["network"].load_state_dict({key: value.clone() for key, value in ours.state_dict().items()}, strict=True)
    image = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(found["network"].eval()(image), ours(image), atol=1e-5)


def test_a_stem_is_told_where_others_are_common() -> None:
    assert stem_of("resnet50").startswith("7x7 convolution of stride 2")
    assert stem_of("resnet50", small_stem=True) == "3x3 convolution of stride 1, BatchNorm, ReLU, no pooling"
    assert stem_of("cnn").startswith("3x3 convolution of stride 2")
    assert stem_of("vit_b_16") == stem_of("timm:resnet18") == ""
