"""Training on kept features is training on images, without the body."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.frozen_features import Head, features_of_bodies, heads_of, keeps_features, width_of
from learning.images import Features, Images
from learning.inference import Inference
from learning.method import Batch, Method, Seen, Visit
from learning.network import NetworkSpec, build
from learning.shared_state import shared_state
from learning.training import TrainingReport, train_locally
from methods import METHODS, build_method
from probe.client import CLASSES, HEAVIEST
from task import Compute, classifier, derived_generator, networks_of

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(0, 256, (24, 16, 16, 3), dtype=torch.uint8, generator=derived_generator(1, "images"))
LABELS = torch.arange(24) % CLASSES
CONFIG = RunConfig(
    model="cnn", image_size=16, batch_size=8, learning_rate=0.05, local_epochs=2, num_server_rounds=4,
    trainable="head", augmentation="none",
)  # fmt: skip
MIXING = {"dividemix", "fedlsr", "fedcorr", "feddiv", "fedclean"}


@dataclass(frozen=True)
class Plain(Method):
    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels)


@dataclass(frozen=True)
class Mixing(Plain):
    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        return [-view for view in seen.inputs]


def network_of(method: Method, config: RunConfig = CONFIG) -> nn.Module:
    return build(NetworkSpec.of(config, method, CLASSES))


def visit(
    model: nn.Module, method: Method, config: RunConfig, images: Images | Tensor, state: Mapping[str, Tensor] | None
) -> TrainingReport:
    return train_locally(
        model, images, LABELS, method, config, CPU, derived_generator(1, "t"),
        server_round=config.num_server_rounds, told=HEAVIEST, state=state,
    )  # fmt: skip


def features_of(model: nn.Module, compute: Compute = CPU) -> Tensor:
    inference = Inference(Images(IMAGES, compute.device), CONFIG.image_size, compute, CONFIG.normalization)
    return features_of_bodies(model, inference)


def on_features(
    model: nn.Module, method: Method, config: RunConfig = CONFIG, state: Mapping[str, Tensor] | None = None
) -> TrainingReport:
    return visit(heads_of(model), method, config, Features(features_of(model), CPU.device), state)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_trains_a_head(name: str) -> None:
    config = replace(CONFIG, method=name)
    method = build_method(config)
    model = network_of(method)
    before = copy.deepcopy(model.state_dict())
    assert keeps_features(method, config) == (name not in MIXING)
    full = visit(model, method, config, IMAGES, None)
    trained = shared_state(model)
    same = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert before.keys() - same <= trained.keys()
    assert before.keys() - same
    if name in MIXING:
        return
    other = network_of(method)
    report = on_features(other, method, config)
    for key, value in shared_state(other).items():
        torch.testing.assert_close(value, trained[key], rtol=1e-5, atol=1e-6)
    assert report.epoch_losses == pytest.approx(full.epoch_losses, rel=1e-5, abs=1e-6)
    assert report.visit.state.keys() == full.visit.state.keys()  # the next visit finds its own, whichever way it trains
    again = on_features(other, method, config, state=full.visit.state)
    visit(model, method, config, IMAGES, report.visit.state)
    assert again.images_seen == report.images_seen == full.images_seen


def test_bit_for_bit_with_itself() -> None:
    runs = [network_of(Plain()) for _ in range(2)]
    for model in runs:
        on_features(model, Plain())
    assert all(torch.equal(value, runs[0].state_dict()[name]) for name, value in runs[1].state_dict().items())


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (Plain(), {"trainable": "all"}),
        (Plain(), {"trainable": "lora"}),
        (Plain(), {"augmentation": "flip"}),
        (Plain(), {"compile": True}),
        (Mixing(), {}),
        (build_method(replace(CONFIG, method_args="mixup=0.2")), {}),
    ],
)
def test_where_images_differ_from_step_to_step_no_feature_is_kept(method: Method, changes: dict[str, Any]) -> None:
    assert keeps_features(Plain(), CONFIG)
    assert keeps_features(build_method(CONFIG), CONFIG)
    assert not keeps_features(method, replace(CONFIG, **changes))


def test_several_networks_have_their_features_side_by_side() -> None:
    model = build(NetworkSpec("cnn", 5, 2, trainable="head"))
    features, heads = features_of(model), heads_of(model)
    assert features.shape == (24, width_of(model)) == (24, 128)
    assert not torch.equal(features[:, :64], features[:, 64:])
    images = Inference(Images(IMAGES, CPU.device), 16, CPU, CONFIG.normalization)
    kept = Inference(Features(features, CPU.device), 16, CPU, CONFIG.normalization)
    for full, head in zip(networks_of(model), networks_of(heads), strict=True):
        torch.testing.assert_close(kept.on_all(head), images.on_all(full))
        assert torch.equal(kept.features_of_all(head), images.features_of_all(full))
        torch.testing.assert_close(kept.frozen(head)(features), images.on_all(full))
    assert list(shared_state(heads)) == list(shared_state(model))


class Nested(nn.Module):
    """A classifier deep inside, as torchvision's ViT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 6), nn.ReLU(), nn.Dropout(0.5))
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads(self.body(x))
        return out


@pytest.mark.parametrize("further", [(), (("types", 3),)])
def test_layers_keep_their_names_and_memory(monkeypatch: pytest.MonkeyPatch, further: Any) -> None:
    monkeypatch.setattr("task.build", lambda name, classes, side, stem: Nested())
    model = build(NetworkSpec("cnn", 5, heads=further, trainable="head"))
    head = heads_of(model)
    assert isinstance(head, Head)
    assert classifier(head) is classifier(model)
    trained = shared_state(model)
    assert list(shared_state(head)) == list(head.state_dict()) == list(trained)
    assert all(value.data_ptr() == trained[name].data_ptr() for name, value in shared_state(head).items())
    assert not any(module.training for module in head.train().modules())
    features = features_of(model)
    assert torch.equal(features, features_of(model))  # nothing is dropped


FAMILIES = (
    "cnn", "resnet18", "googlenet", "squeezenet1_1", "densenet121", "shufflenet_v2_x0_5", "mobilenet_v3_small",
    "mnasnet0_5", "efficientnet_b0", "regnet_x_400mf", "convnext_tiny", "swin_t", "timm:vit_tiny_patch16_224",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_answers_with_its_classifier(name: str) -> None:
    """Otherwise its head on features would be another network."""
    model = build(NetworkSpec(name, 5, image_size=32, trainable="head"))
    images = torch.randn(2, 3, 32, 32, generator=derived_generator(1, "x"))
    found: list[Tensor] = []
    hook = classifier(model).register_forward_hook(lambda layer, inputs, output: found.extend((inputs[0], output)))
    answer = model(images)
    hook.remove()
    features, logits = found
    assert features.shape == (2, classifier(model).in_features)
    assert torch.equal(answer, logits)
    assert torch.equal(heads_of(model)(features), answer)
    assert not features.requires_grad  # no graph through a frozen body


def test_features_of_another_precision_are_float32() -> None:
    model = network_of(Plain())
    features = features_of(model, Compute(CPU.device, torch.bfloat16))
    assert features.dtype is torch.float32
    assert not torch.equal(features, features_of(model))
    assert torch.equal(features, features.bfloat16().float())


@pytest.mark.parametrize("stay", [True, False])
def test_batches_of_features(stay: bool) -> None:
    values = torch.arange(12.0).reshape(6, 2)
    held = Features(values, CPU.device, stay)
    assert (len(held), held.shape) == (6, (6, 2))
    found = list(held.batches([torch.tensor([5, 0]), torch.tensor([2])]))
    assert [(batch.tolist(), rows.tolist()) for batch, rows in found] == [([[10, 11], [0, 1]], [5, 0]), ([[4, 5]], [2])]
    assert [len(part) for part in held.in_order(4)] == [4, 2]
    assert torch.equal(torch.cat(list(held.in_order(4))), values)
    held._here = None  # as on a GPU without room
    assert torch.equal(torch.cat(list(held.in_order(4))), values)
    assert [batch.tolist() for batch, _ in held.batches([torch.tensor([2])])] == [[[4, 5]]]
