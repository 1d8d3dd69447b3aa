"""What trains and travels of a network: shared and frozen parts, heads, BatchNorm."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord
from safetensors.torch import load_file
from torch import Tensor, nn

from config.run_config import ConfigError, RunConfig
from learning.frozen import freeze_statistics, keep_evaluating
from learning.method import Batch, Visit
from learning.network import NetworkSpec, build, check_batchnorm
from learning.optimizer import make_optimizer
from learning.shared_state import batchnorm_names, frozen_digest, load_shared, plain_state, shared_state
from learning.training import train_locally
from learning.weights_fit import body_of
from methods.ce import CE
from server_app.callbacks import History
from server_app.callbacks.latest_model import LatestModel
from task import HEADS, build_model, derived_generator, networks_of
from tests.learning.networks import CONFIG, CPU, IMAGES, LABELS, Block, changed, train


@pytest.mark.parametrize("networks", [1, 2])
def test_all_of_it_travels_if_all_trains(networks: int) -> None:
    spec = NetworkSpec("resnet18", 5, networks, (("types", 3),), image_size=32)
    model = build(spec)
    assert list(shared_state(model)) == list(model.state_dict())
    assert frozen_digest(model) == ""
    plain = build_model("resnet18", 5, 0, networks, (("types", 3),))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("trainable", ["all", "head", "lora"])
def test_a_network_that_is_filled_elsewhere_keeps_its_stem(trainable: str, tmp_path: Path) -> None:
    """Without its initial weights, `auto` would choose again, and choose the small one."""
    path = tmp_path / "weights.pt"
    torch.save(build_model("resnet18", 7, seed=3).state_dict(), path)
    config = RunConfig(model="resnet18", image_size=32, pretrained=str(path), trainable=trainable)
    spec = NetworkSpec.of(config, CE(), 5)
    fresh = NetworkSpec.of(replace(config, pretrained="none"), CE(), 5)
    assert (spec.stem, fresh.stem) == ("imagenet", "small")
    ours, theirs = (shared_state(build(one)) for one in (spec, spec.to_be_filled()))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    small = build(fresh)
    assert isinstance(small.get_submodule("maxpool"), nn.Identity)
    if trainable != "all":
        assert frozen_digest(build(replace(fresh, stem="imagenet"))) != frozen_digest(small)
        assert "conv1.weight" not in shared_state(small)


def test_constants_of_an_architecture_do_not_travel(block: Block) -> None:
    assert shared_state(block).keys() == block.state_dict().keys() - {"constant"}
    assert plain_state(block).keys() == block.state_dict().keys()


def test_only_the_head_trains_and_travels() -> None:
    model = build(NetworkSpec("cnn", 5, trainable="head", heads=(("types", 3),)))
    names = {"fc.weight", "fc.bias", f"{HEADS}.types.weight", f"{HEADS}.types.bias"}
    assert set(shared_state(model)) == names
    before = train(model)
    assert changed(model, before) == {"fc.weight", "fc.bias"}  # no loss of ce reaches the further head
    assert not any(module.training for module in model.modules())


def test_head_on_two_networks() -> None:
    model = build(NetworkSpec("cnn", 5, 2, trainable="head"))
    assert set(shared_state(model)) == {f"networks.{n}.fc.{part}" for n in (0, 1) for part in ("weight", "bias")}


def test_the_frozen_rest_has_a_hash_of_its_own() -> None:
    spec = NetworkSpec("cnn", 5, trainable="head", seed=3)
    model, same = build(spec), build(spec)
    assert frozen_digest(model) == frozen_digest(same) != ""
    with torch.no_grad():
        same.fc.weight.add_(1)  # type: ignore[operator, union-attr]
        assert frozen_digest(model) == frozen_digest(same)
        same.bn1.running_mean.add_(1e-6)  # type: ignore[operator, union-attr]
    assert frozen_digest(model) != frozen_digest(same)
    assert frozen_digest(build(NetworkSpec("cnn", 5, trainable="head", seed=4))) != frozen_digest(model)


def test_what_arrives_fills_a_copy_of_the_same_kind() -> None:
    one, other = (build(NetworkSpec("cnn", 5, seed=seed, trainable="lora")) for seed in (1, 2))
    load_shared(other, shared_state(one))
    assert all(torch.equal(value, shared_state(other)[name]) for name, value in shared_state(one).items())
    with pytest.raises(ValueError, match="another network"):
        load_shared(build(NetworkSpec("cnn", 5)), shared_state(one))


def test_copies_keep_what_is_frozen() -> None:
    model = build(NetworkSpec("cnn", 5, trainable="lora"))
    same = copy.deepcopy(model).train()
    assert not same.bn1.training  # type: ignore[union-attr]
    assert shared_state(same).keys() == shared_state(model).keys()
    inputs = torch.randn(2, 3, 16, 16, generator=derived_generator(1, "inputs"))
    assert torch.equal(same(inputs), model.train()(inputs))


def test_frozen_statistics_stay_and_weights_train() -> None:
    model = build(NetworkSpec("cnn", 5, batchnorm="frozen"))
    assert list(shared_state(model)) == list(model.state_dict())
    before = train(model)
    names = batchnorm_names(model)
    weights = {name for name in names if name.endswith((".weight", ".bias"))}
    assert changed(model, before) & names == weights
    assert names - weights == {
        f"bn{n}.{what}" for n in (1, 2, 3) for what in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_modules_that_evaluate_for_good_stay_of_their_class() -> None:
    layer = nn.BatchNorm2d(3)
    keep_evaluating(layer)
    keep_evaluating(layer)
    assert isinstance(layer, nn.BatchNorm2d)
    assert type(layer).__name__ == "BatchNorm2d"
    assert not layer.train().training
    freeze_statistics(network := nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    assert [module.training for module in network.train()] == [False, True]


def test_batchnorm_is_refused_where_there_is_none(block: Block) -> None:
    check_batchnorm(RunConfig(batchnorm="average"), block)
    with pytest.raises(ConfigError, match="'batchnorm' is 'local', but resnet50 has no BatchNorm; it must be average"):
        check_batchnorm(RunConfig(batchnorm="local"), block)
    check_batchnorm(RunConfig(batchnorm="local"), build(NetworkSpec("cnn", 5)))


def test_weights_to_come_need_no_initial_ones() -> None:
    config = RunConfig(model="cnn", pretrained="/weights.pt", seed=7)
    spec = NetworkSpec.of(config, CE(), 5)
    assert spec.to_be_filled("/elsewhere.pt") == NetworkSpec("cnn", 5, image_size=48)
    frozen = NetworkSpec.of(RunConfig(model="cnn", pretrained="/weights.pt", seed=7, trainable="head"), CE(), 5)
    assert frozen.to_be_filled() == frozen
    assert frozen.to_be_filled("/elsewhere.pt").pretrained == "/elsewhere.pt"


class Restless(CE):
    """A method that switches all layers to training mode in each step."""

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        for module in visit.networks[0].modules():
            module.train()
        return super().loss(batch, visit)


@pytest.mark.parametrize("trainable", ["head", "lora"])
def test_no_method_changes_the_frozen_rest(trainable: str) -> None:
    model = build(NetworkSpec("cnn", 5, trainable=trainable))
    frozen = frozen_digest(model)
    train_locally(model, IMAGES, LABELS, Restless(), CONFIG, CPU, derived_generator(1, "t"))
    assert frozen_digest(model) == frozen


def test_networks_side_by_side_are_clipped_each_by_itself() -> None:
    model = build(NetworkSpec("cnn", 5, 2))
    optimizer = make_optimizer(RunConfig(), model)
    optimizer.begin(0.1, 0.0, 0.0)
    for number, network in enumerate(networks_of(model)):
        for value in network.parameters():
            value.grad = torch.full_like(value, 100.0**number)
    optimizer.take_gradients()
    optimizer.clip_gradients(2.0)
    for network in networks_of(model):
        gradients = [value.grad.flatten() for value in network.parameters() if value.grad is not None]
        assert float(torch.cat(gradients).norm()) == pytest.approx(2.0, rel=1e-4)


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.other = nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.fc = nn.Linear(4, 5)


def test_tied_weights_are_read_and_written(tmp_path: Path) -> None:
    arrays = ArrayRecord(shared_state(model := Tied()))
    LatestModel(tmp_path / "model.safetensors", ("a",), RunConfig(), model).on_start(replace(History(1), arrays=arrays))
    whole = load_file(tmp_path / "model.safetensors")
    assert whole.keys() == model.state_dict().keys()
    assert torch.equal(whole["one.weight"], whole["other.weight"])
    assert body_of(whole, 0, "tied", Tied()).keys() == {"one.weight", "other.weight"}
