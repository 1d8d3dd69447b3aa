"""What a method lets a client learn alone: the loop of a federation of one, which leaves no trace in the visit."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from config.run_config import RunConfig
from learning.alone import config_alone, copies
from learning.frozen_features import features_of_bodies, heads_of
from learning.images import Features, Images
from learning.inference import Inference
from learning.method import Method, Visit
from learning.method_rules import MethodError, problem_of_class
from learning.network import NetworkSpec, build
from learning.optimizer import make_optimizer
from learning.schedule import rate_of
from learning.training import TrainingReport, train_locally
from messages import keys
from methods.ce import CE
from methods.co_teaching import CoTeaching
from methods.elr import ELR
from methods.joint_optimization import JointOptimization
from server_app.expected import Expected
from server_app.members import Member
from task import Compute, Networks, build_model, classifier, derived_generator, derived_seed, networks_of

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (10, 16, 16, 3), dtype=torch.uint8, generator=derived_generator(1, "images"))
LABELS = torch.arange(10) % 4  # of five classes
CONFIG = RunConfig(
    model="cnn", image_size=16, batch_size=4, local_epochs=2, learning_rate=0.05, drop_last=False, num_server_rounds=8
)


@dataclass(frozen=True)
class Scholar(CE):
    """Cross-entropy, once another method has learned alone; it announces twenty passes."""

    inner: Method = field(default_factory=CE)
    epochs: int = 3
    times: int = 1

    passes_alone = 20

    def begin(self, visit: Visit) -> None:
        visit.scratch["learned"] = [visit.alone(self.inner, self.epochs) for _ in range(self.times)]


def _train(method: Method, model: nn.Module | None = None, images: Any = IMAGES, **more: Any) -> TrainingReport:
    config = replace(CONFIG, **{name: more.pop(name) for name in list(more) if hasattr(CONFIG, name)})
    model = build_model("cnn", 5, seed=1) if model is None else model
    return train_locally(model, images, LABELS, method, config, CPU, derived_generator(1, "t"), **more)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("inner", [CE(), JointOptimization(), ELR(weight_averaging=0.5), CE(mixup=1.0)])
def test_it_is_a_federation_of_one(inner: Method) -> None:
    """Round after round by hand: labels, state and optimiser are handed on, and the rate follows the schedule."""
    schedule: dict[str, Any] = {
        "lr_schedule": "cosine",
        "momentum": 0.9,
        "gradient_clipping": 0.5,
        "augmentation": "flip",
    }
    (learned,) = _train(Scholar(inner=inner), **schedule).visit.scratch["learned"]
    config = replace(CONFIG, **schedule, local_epochs=1, num_server_rounds=3)
    assert [rate_of(config, number) for number in (1, 2, 3)] == pytest.approx([0.05, 0.0375, 0.0125])
    seed = derived_seed(derived_generator(1, "t").initial_seed(), "alone", 1)
    model, state, labels = build_model("cnn", 5, seed=1), None, None
    optimizer, losses = make_optimizer(config, model), []
    for number in (1, 2, 3):
        report = train_locally(
            model, IMAGES, LABELS, inner, config, CPU, derived_generator(seed, "epoch", number), optimizer=optimizer,
            server_round=number, state=state, relabelled=labels,
        )  # fmt: skip
        state = report.visit.state if inner.remembers else None
        labels = report.visit.corrected if inner.relabels else None
        losses += report.epoch_losses
    assert learned.losses == losses
    inference = Inference(Images(IMAGES, CPU.device), 16, CPU, CONFIG.normalization)
    assert torch.equal(learned.logits, inference.on_all(model))
    assert torch.equal(learned.labels, LABELS if report.visit.corrected is None else report.visit.corrected)
    assert learned.images_seen == 30


@pytest.mark.parametrize("inner", [JointOptimization(), CoTeaching()])
def test_it_leaves_no_trace_in_the_visit(inner: Method) -> None:
    """Neither in weights and statistics of BatchNorm, nor in draws of batches, views and layers that draw."""
    models = [build_model("resnet18", 5, seed=1) for _ in range(2)]
    for model in models:
        model.fc = nn.Sequential(nn.Dropout(0.5), classifier(model))
    values: dict[str, Any] = {"augmentation": "flip", "image_size": 32, "local_epochs": 1}
    images = torch.randint(256, (10, 32, 32, 3), dtype=torch.uint8, generator=derived_generator(1, "images"))
    before = torch.get_rng_state()
    plain = _train(CE(), models[0], images, **values)
    report = _train(Scholar(inner=inner, epochs=1), models[1], images, **values)
    assert torch.equal(torch.get_rng_state(), before)
    assert report.epoch_losses == plain.epoch_losses
    assert _same(_state(models[0]), _state(models[1]))
    assert report.visit.state == {}


def test_all_that_was_trained_on_is_counted() -> None:
    report = _train(Scholar(inner=CoTeaching(), epochs=4, times=2))
    assert report.images_seen == 2 * 10 + 2 * 4 * 10
    assert len(report.epoch_losses) == 2
    assert [len(learned.losses) for learned in report.visit.scratch["learned"]] == [4, 4]
    assert _train(Scholar(), drop_last=True).images_seen == 2 * 8 + 3 * 8  # whole batches
    assert _train(CE()).images_seen == 20


def test_it_can_be_repeated_and_a_second_time_differs() -> None:
    runs = [_train(Scholar(times=2)).visit.scratch["learned"] for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.logits, other.logits)
    assert not torch.equal(runs[0][0].logits, runs[0][1].logits)


def test_the_proximal_term_does_not_hold_it_back() -> None:
    free, held = (_train(Scholar(), proximal_mu=mu).visit.scratch["learned"][0] for mu in (0.0, 10.0))
    assert torch.equal(free.logits, held.logits)


def test_it_learns_from_the_labels_of_the_visit() -> None:
    relabelled = (LABELS + 1) % 4

    @dataclass(frozen=True)
    class Relabelling(Scholar):
        remembers = corrects = relabels = True

    (learned,) = _train(Relabelling(), relabelled=relabelled).visit.scratch["learned"]
    assert torch.equal(learned.labels, relabelled)


def test_two_networks_start_with_equal_bodies_and_other_classifiers() -> None:
    network = build_model("resnet18", 5, seed=1)
    model = copies(network, 3, seed=7)
    assert isinstance(model, Networks)
    for one in networks_of(model):
        assert one is not network
        body = {name: value for name, value in one.state_dict().items() if not name.startswith("fc.")}
        assert _same(body, {name: network.state_dict()[name] for name in body})
    heads = [classifier(one).weight for one in (network, *networks_of(model))]
    assert torch.equal(heads[0], heads[1])
    assert len({value.detach().numpy().tobytes() for value in heads}) == 3
    assert float(heads[2].detach().abs().max()) <= 512**-0.5
    assert _same(_state(copies(network, 3, seed=7)), _state(model))
    assert _same(_state(copies(network, 1, seed=7)), _state(network))


def test_several_networks_answer_with_their_mean_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[nn.Module] = []

    def kept(network: nn.Module, count: int, seed: int) -> nn.Module:
        trained.append(copies(network, count, seed))
        return trained[-1]

    monkeypatch.setattr("learning.alone.copies", kept)
    (learned,) = _train(Scholar(inner=CoTeaching())).visit.scratch["learned"]
    inference = Inference(Images(IMAGES, CPU.device), 16, CPU, CONFIG.normalization)
    both = [inference.on_all(network).double().softmax(dim=1) for network in networks_of(trained[0])]
    assert not torch.equal(*both)
    torch.testing.assert_close(learned.logits.double().exp(), sum(both) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("inner", [CE(), CoTeaching(), JointOptimization()])
def test_a_frozen_body_stays_and_features_serve_as_inputs(inner: Method) -> None:
    model = build(NetworkSpec("cnn", 5, trainable="head", seed=1))
    before = copy.deepcopy(model)
    on_images = _train(Scholar(inner=inner), model, trainable="head").visit.scratch["learned"][0]
    inference = Inference(Images(IMAGES, CPU.device), 16, CPU, CONFIG.normalization)
    features = Features(features_of_bodies(before, inference), CPU.device)
    learned = _train(Scholar(inner=inner), heads_of(before), features, trainable="head").visit.scratch["learned"][0]
    torch.testing.assert_close(learned.logits, on_images.logits, rtol=1e-4, atol=1e-5)
    assert learned.losses == pytest.approx(on_images.losses, rel=1e-5)


def test_adapters_learn_alone() -> None:
    model = build(NetworkSpec("cnn", 5, trainable="lora", trainable_args="rank=2", seed=1))
    report = _train(Scholar(inner=CoTeaching()), model, trainable="lora", precision="bf16")
    assert report.visit.scratch["learned"][0].logits.isfinite().all()


@pytest.mark.parametrize(
    ("epochs", "warm_up", "expected"),
    [(4, 4, [0.025, 0.05, 0.05, 0.05]), (2, 4, [0.05 / 2, 0.05]), (4, 0, [0.05] * 4), (1, 7, [0.05])],
)
def test_a_warm_up_of_the_rate_takes_the_same_share(epochs: int, warm_up: int, expected: list[float]) -> None:
    config = config_alone(replace(CONFIG, lr_warm_up=warm_up, num_server_rounds=16 if epochs == 4 else 8), epochs)
    assert [rate_of(config, number) for number in range(1, epochs + 1)] == pytest.approx(expected)


@dataclass(frozen=True)
class Headed(CE):
    heads = (("types", 3),)


@dataclass(frozen=True)
class Impossible(CE):
    passes = 0


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (Scholar(epochs=21), "Scholar trains alone for 21 passes .*; its passes_alone is 20, and must be at least"),
        (Scholar(epochs=11, times=2), "Scholar trains alone for 22 passes"),
        (Scholar(epochs=0), "Scholar trains CE alone for 0 epochs; it must be at least 1"),
        (Scholar(inner=Headed()), "Scholar trains Headed alone, so its heads must name types as well"),
        (Scholar(inner=Impossible()), "Scholar trains Impossible alone; its passes is 0, and must be"),
    ],
)
def test_what_was_not_announced_is_refused(method: Method, sentence: str) -> None:
    with pytest.raises(MethodError, match=sentence):
        _train(method)


def test_features_cannot_be_mixed() -> None:
    model = build(NetworkSpec("cnn", 5, trainable="head", seed=1))
    inference = Inference(Images(IMAGES, CPU.device), 16, CPU, CONFIG.normalization)
    features = Features(features_of_bodies(model, inference), CPU.device)
    with pytest.raises(MethodError, match="Scholar trains CE alone, which changes images, so its mixes must be True"):
        _train(Scholar(inner=CE(mixup=1.0)), heads_of(model), features, trainable="head")


def test_a_loss_that_is_not_finite_says_where() -> None:
    with pytest.raises(FloatingPointError, match=r"^in epoch \d of 3 that a client trained alone, the loss became "):
        _train(Scholar(), learning_rate=1e9)


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_passes_alone_must_be_a_number(wrong: Any) -> None:
    method: Callable[[], Method] = type("Mine", (CE,), {"passes_alone": wrong})
    sentence = f"its passes_alone is {wrong}, and must be a whole number of at least 0"
    assert problem_of_class(method(), "none") == sentence
    assert problem_of_class(CE(), "none") is None


def test_the_server_believes_as_many_images_as_were_announced() -> None:
    member = Member(1, 0, 10, np.full(5, 2), "cpu")
    schema = Expected(CONFIG, Scholar(), 5).in_training(member, {})[keys.METRICS]
    rule = schema[keys.IMAGES_SEEN]
    assert rule.problem(10 * (2 + 20)) is None
    assert rule.problem(10 * (2 + 20) + 1) is not None
    assert Expected(CONFIG, CE(), 5).in_training(member, {})[keys.METRICS][keys.IMAGES_SEEN].problem(21) is not None
