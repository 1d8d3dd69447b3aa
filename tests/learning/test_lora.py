"""Low-rank adapters: what they compute, where they are, and what of them travels."""

import pytest
import torch

from config.run_config import ConfigError
from learning.lora import Adapter, insert_adapters
from learning.network import NetworkSpec, build
from learning.shared_state import frozen_digest, plain_state, shared_state
from task import derived_generator
from tests.learning.networks import Block, changed, train


def test_adapters_fit_the_small_stem() -> None:
    model = build(NetworkSpec("resnet18", 5, image_size=32, trainable="lora", stem="small")).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    before = train(model)
    assert changed(model, before)


def test_an_adapter_is_the_product_of_two_matrices() -> None:
    weight = torch.zeros(2, 3)
    adapter = Adapter(weight, 1, 4.0, derived_generator(1, "a"))
    with torch.no_grad():
        adapter.a.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        adapter.b.copy_(torch.tensor([[10.0], [20.0]]))
    assert adapter(weight).tolist() == [[40.0, 80.0, 120.0], [80.0, 160.0, 240.0]]  # alpha / rank = 4


def test_adapters_start_without_effect_and_merge_into_plain_weights(block: Block) -> None:
    inputs = torch.randn(2, 3, 4, 4, generator=derived_generator(1, "inputs"))
    expected, names = block.eval()(inputs), block.state_dict().keys()
    adapters = insert_adapters(block, 2, 8.0, "*", derived_generator(1, "a"))
    torch.testing.assert_close(block(inputs), expected, rtol=0, atol=0)
    assert [tuple(one.a.shape) for one in adapters] == [(2, 9), (2, 27), (2, 8), (2, 8), (2, 8)]
    bound = adapters[0].a.abs().max()
    assert 0.1 < bound <= 9**-0.5
    with torch.no_grad():
        for one in adapters:
            one.b.normal_(generator=derived_generator(2, "b"))
    moved = block(inputs)
    assert not torch.allclose(moved, expected)
    plain = plain_state(block)
    assert plain.keys() == names
    fresh = Block()
    fresh.load_state_dict(plain)
    torch.testing.assert_close(fresh.eval()(inputs), moved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "paths"),
    [
        ("auto", ["attention"]),
        ("fc1", ["fc1"]),
        ("attention*", ["attention", "attention.out_proj"]),
        ("fc1,mix", ["mix", "fc1"]),
        ("*", ["depthwise", "mix", "attention", "attention.out_proj", "fc1"]),
    ],
)
def test_targets(block: Block, targets: str, paths: list[str]) -> None:
    insert_adapters(block, 2, 8.0, targets, derived_generator(1, "a"))
    found = [name.partition(".parametrizations")[0] for name in block.state_dict() if name.endswith(".0.a")]
    assert sorted(found) == sorted(paths)


def test_targets_that_fit_nothing_are_refused(block: Block) -> None:
    with pytest.raises(ConfigError, match=r"is called 'block\*'; they must be auto, or names such as depthwise, mix"):
        insert_adapters(block, 2, 8.0, "fc1,block*", derived_generator(1, "a"))


def test_without_attention_all_but_depthwise_layers_have_adapters() -> None:
    model = build(NetworkSpec("cnn", 5, trainable="lora", trainable_args="rank=4 alpha=4"))
    shapes = {name: tuple(value.shape) for name, value in shared_state(model).items()}
    assert shapes == {
        "conv1.parametrizations.weight.0.a": (4, 27),
        "conv1.parametrizations.weight.0.b": (16, 4),
        "conv2.parametrizations.weight.0.a": (4, 144),
        "conv2.parametrizations.weight.0.b": (32, 4),
        "conv3.parametrizations.weight.0.a": (4, 288),
        "conv3.parametrizations.weight.0.b": (64, 4),
        "fc.weight": (5, 64),
        "fc.bias": (5,),
    }
    before = train(model)
    assert changed(model, before) == set(shapes)
    assert not model.bn1.training  # type: ignore[union-attr]
    assert model.training


def test_a_that_does_not_train_does_not_travel() -> None:
    spec = NetworkSpec("cnn", 5, trainable="lora", trainable_args="freeze-a=true", seed=1)
    model = build(spec)
    assert {name.rpartition(".")[2] for name in shared_state(model)} == {"b", "weight", "bias"}
    before = train(model)
    assert changed(model, before) == set(shared_state(model))
    other = build(NetworkSpec("cnn", 5, trainable="lora", trainable_args="freeze-a=true", seed=2))
    assert frozen_digest(other) != frozen_digest(model)


def test_a_rank_is_no_larger_than_the_weights_own() -> None:
    model = build(NetworkSpec("cnn", 5, trainable="lora", trainable_args="rank=1024 targets='conv1'"))
    assert shared_state(model)["conv1.parametrizations.weight.0.a"].shape == (16, 27)
