"""Early-learning regularisation: worked numbers, its gradient, and targets that last."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from config.run_config import RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods.elr import ELR
from task import Compute, build_model, derived_generator, to_input
from tests.batches_of import Y, Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (10, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(10) % 4  # of five classes; the last is absent


def _begun(method: ELR, labels: torch.Tensor = Y, **values: Any) -> Visit:
    visit = visit_of(labels, **values)
    method.begin(visit)
    return visit


def _close(value: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(value.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5)


def test_two_steps_by_hand() -> None:
    method = ELR()
    visit = _begun(method)
    _close(method.loss(batch_of(Y, Z), visit), 0.319473)
    _close(visit.state["targets"], [[0.235679, 0.052587, 0.011734], [0.057410, 0.172469, 0.070121]])
    _close(method.loss(batch_of(Y, Z), visit), -0.119271)
    _close(visit.state["targets"], [[0.400654, 0.089398, 0.019947], [0.097597, 0.293198, 0.119205]])
    assert visit.state["targets"].dtype is torch.float32


def test_the_federated_authors_settings_by_hand() -> None:
    method = ELR(beta=0.1, strength=2)
    _close(method.loss(batch_of(Y, Z), _begun(method)), -0.508147)


def test_without_strength_it_is_cross_entropy() -> None:
    method = ELR(strength=0)
    _close(method.loss(batch_of(Y, Z), _begun(method)), 0.847437)


def test_the_gradient_is_that_of_a_target_held_fixed() -> None:
    """For one image: ``p - onehot - lambda p (t - <t, p>) / (1 - <t, p>)``, where t is the new target."""
    method = ELR()
    logits = Z.clone().requires_grad_()
    visit = _begun(method)
    method.loss(batch_of(Y, logits), visit).backward()
    p = Z.softmax(dim=1)
    t = 0.3 * p
    inner = (t * p).sum(dim=1, keepdim=True)
    expected = (p - one_hot(Y, 3) - 3 * p * (t - inner) / (1 - inner)) / 2
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-9)
    assert not visit.state["targets"].requires_grad


@given(st.integers(2, 14), st.floats(0, 1000), st.floats(0, 0.99), st.integers(0, 999))
def test_the_pull_is_bounded_however_certain_the_network_is(classes: int, scale: float, beta: float, seed: int) -> None:
    """1 - <t, p> stays above 1e-4 in float32, where its logarithm is bounded, and gradients are finite."""
    method = ELR(beta=beta)
    labels = torch.arange(6) % classes
    visit = _begun(method, labels, num_classes=classes)
    logits = scale * torch.randn(6, classes, generator=torch.Generator().manual_seed(seed))
    logits.requires_grad_()
    for _ in range(20):
        loss = method.loss(batch_of(labels, logits), visit)
    pull = (loss - cross_entropy(logits, labels)).item()
    assert 3 * math.log(1e-4) - 0.01 <= pull <= 0.01
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


def test_rows_tell_whose_targets_change_and_unseen_images_keep_their_labels() -> None:
    method = ELR()
    given = torch.tensor([2, 2, 2, 0])
    visit = _begun(method, given)
    method.loss(batch_of(given[[3, 1]], Z, rows=torch.tensor([3, 1])), visit)
    assert (visit.state["targets"].sum(dim=1) > 0).tolist() == [False, True, False, True]
    method.end(visit)
    assert visit.corrected is not None
    assert visit.corrected.tolist() == [2, 1, 2, 0]  # Z says 0 of image 3, and 1 of image 1
    assert visit.corrected.dtype is torch.int64


def test_a_client_without_a_class_learns_targets_for_all() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    method = ELR()
    visit = _begun(method, labels)
    loss = method.loss(batch_of(labels, Z), visit)
    assert torch.isfinite(loss)
    assert visit.state["targets"].shape == (2, 3)
    method.end(visit)
    assert visit.corrected is not None
    assert visit.corrected.tolist() == [0, 1]


def _visit(state: Any = None, method: ELR | None = None, **changes: Any) -> Any:
    settings = {"model": "cnn", "image_size": 32, "batch_size": 4, "local_epochs": 2, "learning_rate": 0.01}
    config = RunConfig(**{**settings, **changes})
    model = build_model("cnn", 5, seed=3)
    report = train_locally(model, IMAGES, LABELS, method or ELR(), config, CPU, derived_generator(1, "t"), state=state)
    return report, model


def test_targets_last_from_visit_to_visit() -> None:
    first, _ = _visit(drop_last=False)
    kept = {name: value.clone() for name, value in first.visit.state.items()}
    again, _ = _visit(drop_last=False)
    second, _ = _visit(first.visit.state, drop_last=False)
    assert again.epoch_losses == first.epoch_losses
    assert second.epoch_losses[0] < first.epoch_losses[0] - 0.1  # targets are nearer to what is predicted
    assert second.visit.state["targets"].sum() > first.visit.state["targets"].sum()
    for name, value in first.visit.state.items():
        assert torch.equal(value, kept[name])  # what was handed in is not written into


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batches_of_one_and_partitions_smaller_than_a_batch(batch_size: int) -> None:
    report, _ = _visit(batch_size=batch_size, drop_last=False)
    assert report.images_seen == 20
    assert (report.visit.state["targets"].sum(dim=1) > 0.5).all()  # 1 - 0.7^2
    assert report.visit.corrected.shape == (10,)


def test_images_that_dropped_batches_held_keep_their_labels() -> None:
    report, _ = _visit(batch_size=8, local_epochs=1)
    unseen = report.visit.state["targets"].sum(dim=1) == 0
    assert unseen.sum() == 2
    assert torch.equal(report.visit.corrected[unseen], LABELS[unseen])


def test_training_follows_a_loop_written_for_it_alone() -> None:
    report, model = _visit(local_epochs=3, drop_last=False, momentum=0.0, weight_decay=0.0)
    plain = build_model("cnn", 5, seed=3)
    generator = derived_generator(1, "t")
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    inputs = (IMAGES.permute(0, 3, 1, 2) / 255 - mean) / deviation
    targets = torch.zeros(10, 5)
    for _ in range(3):
        for rows in torch.randperm(10, generator=generator).split(4):
            logits = plain(inputs[rows])
            p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
            targets[rows] = 0.7 * targets[rows] + 0.3 * (p / p.sum(1, keepdim=True)).detach()
            loss = cross_entropy(logits, LABELS[rows]) + 3 * (1 - (targets[rows] * p).sum(1)).log().mean()
            parameters = list(plain.parameters())
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(0.01 * gradient)
    torch.testing.assert_close(report.visit.state["targets"], targets, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.get_parameter("fc.weight"), plain.get_parameter("fc.weight"), rtol=0, atol=1e-5)


def test_targets_are_those_of_an_averaged_network_of_the_client() -> None:
    """Two visits of two steps against a loop written for it alone: the second goes on where the first ended."""
    method = ELR(weight_averaging=0.75)
    changes: dict[str, Any] = {
        "method": method,
        "local_epochs": 1,
        "batch_size": 5,
        "momentum": 0.0,
        "weight_decay": 0.0,
    }
    state, mean, targets = None, build_model("cnn", 5, seed=3).eval(), torch.zeros(10, 5)
    inputs = to_input(IMAGES, CPU, "imagenet")
    for _ in range(2):
        report, model = _visit(state, **changes)
        state = report.visit.state
        plain, losses = build_model("cnn", 5, seed=3), []
        for rows in torch.randperm(10, generator=derived_generator(1, "t")).split(5):
            logits = plain(inputs[rows])
            p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
            with torch.no_grad():
                believed = mean(inputs[rows]).softmax(1).clamp(1e-4, 1 - 1e-4)
            targets[rows] = 0.7 * targets[rows] + 0.3 * believed / believed.sum(1, keepdim=True)
            loss = cross_entropy(logits, LABELS[rows]) + 3 * (1 - (targets[rows] * p).sum(1)).log().mean()
            parameters = list(plain.parameters())
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(0.01 * gradient)
                for averaged, value in zip(mean.state_dict().values(), plain.state_dict().values(), strict=True):
                    averaged.copy_(0.75 * averaged + 0.25 * value if value.is_floating_point() else value)
            losses.append(loss.item())
        assert report.epoch_losses == pytest.approx([sum(losses) / 2], abs=1e-5)
        torch.testing.assert_close(state["targets"], targets, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=1e-5)
        for name, value in mean.state_dict().items():
            torch.testing.assert_close(state[f"own/{name}"], value, rtol=0, atol=1e-5)


def test_without_averaging_no_network_is_kept_and_with_it_no_step_waits() -> None:
    assert not ELR().keeps_network
    plain, _ = _visit()
    assert plain.visit.own is None
    assert set(plain.visit.state) == {"targets"}
    with CountedOperations() as operations:
        _visit(method=ELR(weight_averaging=0.9))
    assert operations.counts["aten::_local_scalar_dense"] == 2  # one an epoch


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"beta": 1.0}, "beta must be a number at least 0 and below 1"),
        ({"beta": -0.1}, "beta must be a number at least 0 and below 1"),
        ({"strength": -1.0}, "strength must be a number at least 0"),
        ({"strength": float("nan")}, "strength must be a number at least 0"),
        ({"strength": float("inf")}, "strength must be a number at least 0"),
        ({"weight_averaging": 1.0}, "weight-averaging must be a number at least 0 and below 1"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ELR(**values)
