"""FedNoRo on a client: its loss and the weight of distillation by hand, and whole visits."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods import METHODS
from methods.fednoro import FedNoRo
from task import Compute, build_model, derived_generator, to_input
from tests.batches_of import ZB, Y, Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)
LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
NOISY = {"stage": 2, "noisy": True, "stage-2-began": 3}


class Frozen:
    """Stands in for `Inference`: its networks answer the given logits."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.asked: list[Tensor] = []

    def frozen(self, network: Any) -> Any:
        def answer(inputs: Tensor) -> Tensor:
            self.asked.append(inputs)
            return self.logits

        return answer


def _noisy_visit(method: FedNoRo, labels: Tensor = LABELS, weight: float = 0.3) -> Visit:
    visit = visit_of(labels, told=NOISY, server_round=3, num_rounds=14, networks=[None], inference=Frozen(ZB))
    method.begin(visit)
    visit.scratch["weight"] = weight
    return visit


def test_the_loss_of_a_noisy_client_by_hand() -> None:
    method = FedNoRo()
    images = torch.ones(2, 3, 1, 1)
    visit = _noisy_visit(method)
    assert visit.metrics == {"noisy": 1.0}
    assert method.loss(batch_of(Y, Z, inputs=images), visit).item() == pytest.approx(0.894061, abs=1e-5)
    assert visit.inference.asked == [images]  # type: ignore[union-attr]  # the teacher sees what the student sees
    assert method.loss(batch_of(Y, Z), _noisy_visit(method, weight=1.0)).item() == pytest.approx(0.587889, abs=1e-5)
    assert method.loss(batch_of(Y, Z), _noisy_visit(method, weight=0.0)).item() == pytest.approx(1.025278, abs=1e-5)


def test_the_gradient_is_that_of_both_parts() -> None:
    """Of KL(q || p) over the batch of n it is (p - q) / n, of LA (p - onehot) / n, with p of the adjusted logits."""
    logits = Z.clone().requires_grad_()
    method = FedNoRo()
    method.loss(batch_of(Y, logits), _noisy_visit(method)).backward()
    p = (Z + torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()).softmax(dim=1)
    q = torch.tensor([[0.330950, 0.618297, 0.050753], [0.274194, 0.213543, 0.512263]])
    expected = (0.3 * (p - q) + 0.7 * (p - torch.eye(3)[Y])) / 2
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("told", [{}, {"stage": 1, "noisy": False}, {"stage": 2, "noisy": False, "stage-2-began": 2}])
def test_in_stage_1_and_on_clean_clients_labels_are_trusted(told: dict[str, Any]) -> None:
    method = FedNoRo()
    visit = visit_of(LABELS, told=told, server_round=5, num_rounds=14)  # it has no networks to make a teacher of
    method.begin(visit)
    assert method.loss(batch_of(Y, Z), visit).item() == pytest.approx(1.025278, abs=1e-5)
    assert visit.metrics == {"noisy": 0.0}
    plain = FedNoRo(adjustment=0.0)
    plain.begin(visit)
    assert plain.loss(batch_of(Y, Z), visit).item() == pytest.approx(cross_entropy(Z, Y).item())


@pytest.mark.parametrize(
    ("b", "e", "t", "weight"),
    [
        (10, 49, 10, 0.00539), (10, 49, 20, 0.0504), (10, 49, 30, 0.244177), (10, 49, 40, 0.612984), (10, 49, 49, 0.8),
        (10, 49, 99, 0.8), (20, 120, 20, 0.00539), (20, 120, 45, 0.048044), (20, 120, 70, 0.229204),
        (20, 120, 95, 0.585293), (20, 120, 119, 0.7996),
    ],
)  # fmt: skip
def test_the_weight_of_distillation_by_hand(b: int, e: int, t: int, weight: float) -> None:
    method = FedNoRo(ramp_end_round=e)
    assert method.weight(server_round=t + 1, began=b + 1, num_rounds=1000) == pytest.approx(weight, abs=2e-6)
    if e == 120:  # all rounds, which is the default
        assert FedNoRo().weight(t + 1, b + 1, 120) == method.weight(t + 1, b + 1, 120)


def test_a_ramp_that_ends_before_it_begins_is_no_ramp() -> None:
    assert FedNoRo(ramp_end_round=3).weight(server_round=4, began=4, num_rounds=10) == 0.8
    assert FedNoRo(ramp_end=0.2, distillation=0.5).weight(server_round=9, began=8, num_rounds=10) == 0.5


def test_a_visit_takes_the_weight_of_its_round() -> None:
    method = FedNoRo()
    for told, began in (({**NOISY, "stage-2-began": 5}, 5), ({"stage": 2, "noisy": True}, 3)):
        visit = visit_of(LABELS, told=told, server_round=9, num_rounds=14, networks=[None], inference=Frozen(ZB))
        method.begin(visit)
        assert visit.scratch["weight"] == method.weight(9, began, 14)


def test_classes_that_the_client_lacks_are_not_distilled() -> None:
    """Nothing is infinite, and the logit of a class that the client cannot know stays where it is."""
    logits = Z.clone().requires_grad_()
    method = FedNoRo()
    loss = method.loss(batch_of(Y, logits), _noisy_visit(method, torch.tensor([0, 0, 2])))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 1].abs().max() < 1e-7


def _data(count: int, classes: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))
    return images, torch.arange(count) % classes


def _visit(
    method: FedNoRo, told: dict[str, Any], *, count: int = 12, classes: int = 4, batch_size: int = 4, **values: Any
) -> Any:
    """Two epochs; if there are four classes, the fifth that the network knows is absent."""
    settings = {"model": "cnn", "image_size": 16, "batch_size": batch_size, "local_epochs": 2, **values}
    model = build_model("cnn", 5, seed=1)
    report = train_locally(
        model, *_data(count, classes), method, RunConfig(**settings), CPU, derived_generator(1, "t"),
        server_round=14, told=told,
    )  # fmt: skip
    return model, report


def test_the_teacher_is_the_model_as_received_in_evaluation_mode_in_every_epoch() -> None:
    """One batch of all images an epoch and nothing but distillation, so that each loss follows from the networks."""
    method = FedNoRo(temperature=0.5, distillation=1.0, ramp_end_round=1, adjustment=0.0)
    values: dict[str, Any] = {"batch_size": 12, "classes": 5, "learning_rate": 0.1}
    _, report = _visit(method, NOISY, **values)
    after_one, _ = _visit(method, NOISY, **values, local_epochs=1)
    inputs = to_input(_data(12, 5)[0], CPU, "imagenet")
    received = build_model("cnn", 5, seed=1)
    for student, loss in zip((received, after_one), report.epoch_losses, strict=True):
        q = (build_model("cnn", 5, seed=1).eval()(inputs) / 0.5).softmax(dim=1)
        p = student.train()(inputs).softmax(dim=1)
        assert loss == pytest.approx((q * (q / p).log()).sum(dim=1).mean().item(), rel=1e-4)
    assert report.visit.metrics == {"noisy": 1.0}
    assert report.visit.state == {}


def test_distillation_changes_what_a_client_learns_and_stays_finite() -> None:
    weights = []
    for told in (NOISY, {"stage": 2, "noisy": False, "stage-2-began": 3}, {}):
        model, report = _visit(FedNoRo(), told, learning_rate=0.05)
        assert all(np.isfinite(report.epoch_losses))
        weights.append(model.fc.weight.detach())
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])


def test_a_batch_of_one() -> None:
    _, report = _visit(FedNoRo(), NOISY, count=3, batch_size=1)
    assert all(np.isfinite(report.epoch_losses))


@pytest.mark.parametrize("told", [NOISY, {}])
def test_a_visit_waits_for_the_device_once_an_epoch(told: dict[str, Any]) -> None:
    with CountedOperations() as operations:
        _visit(FedNoRo(), told)
    assert operations.counts["aten::_local_scalar_dense"] == 2  # 6 steps


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("temperature=0", "temperature must be a number above 0"),
        ("distillation=1.1", "distillation must be a number at least 0 and at most 1"),
        ("ramp-end=0", "ramp-end must be a number above 0 and at most 1"),
        ("ramp-end-round=0", "ramp-end-round must be a whole number from 1 to 1,000,000,000, or -1"),
        ("ramp-end-round=4.5", "ramp-end-round must be a whole number from 1 to 1,000,000,000, or -1"),
    ],
)
def test_bad_parameters_are_refused(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_named("method", METHODS, "fednoro", args)
