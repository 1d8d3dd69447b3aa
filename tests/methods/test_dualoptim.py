"""DualOptim on a client: the loss by hand and its gradients, centroids with classes that are missing, whole visits."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods import METHODS
from methods.centroids import CENTROIDS, KNOWN, class_means
from methods.dualoptim import DualOptim, centre_loss, centroids_for, distances_between, margin_of
from methods.fedelc import FedELC
from task import Compute, build_model, derived_generator
from tests.batches_of import Y, Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations
from tests.methods.test_fedelc import NOISY, _data

CPU = Compute(torch.device("cpu"), torch.float32)
CLEAN = {"stage": 2, "noisy": False, "stage-2-began": 3}
FEATURES = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
CENTRES = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
ALL = torch.ones(3, dtype=torch.bool)


class Features:
    """Stands in for `Inference`: what goes into the classifier is given; counts how often it is asked for."""

    def __init__(self, features: Tensor) -> None:
        self.features, self.passes = features, 0

    def features_of_all(self, network: Any) -> Tensor:
        self.passes += 1
        return self.features


def _loss_of(features: Tensor, labels: Tensor, centroids: Tensor = CENTRES, known: Tensor = ALL) -> Tensor:
    return centre_loss(features, labels, centroids, known, margin_of(centroids, known))


def test_the_centre_loss_by_hand() -> None:
    assert margin_of(CENTRES, ALL).item() == 2
    distances = distances_between(FEATURES, CENTRES)
    expected = torch.tensor([[1, 1, 1], [1.414214, 2, 2.828427]], dtype=torch.float64)
    torch.testing.assert_close(distances, expected, atol=1e-5, rtol=0)
    for row, loss in enumerate((2.758624, 3.877677)):
        assert _loss_of(FEATURES[row : row + 1], Y[row : row + 1]).item() == pytest.approx(loss, abs=1e-5)
    assert _loss_of(FEATURES, Y).item() == pytest.approx(3.318150, abs=1e-5)


def test_the_margin_has_a_limit() -> None:
    assert margin_of(CENTRES * 1000, ALL).item() == 100


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(2, 5))
def test_the_gradient_of_the_centre_loss_is_that_of_the_formula(seed: int, size: int, classes: int) -> None:
    """With m the margin distances and q = softmax(-m): sum_j ([j = y] - q_j) (F - c_j) / |F - c_j|, over the batch."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(size, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    centroids = torch.randn(classes, 4, generator=draw, dtype=torch.float64)
    known = torch.ones(classes, dtype=torch.bool)
    labels = torch.randint(0, classes, (size,), generator=draw)
    _loss_of(features, labels, centroids, known).backward()

    with torch.no_grad():
        differences = features[:, None] - centroids
        distances = differences.norm(dim=2)
        gap = max(float((one - other).norm()) for one in centroids for other in centroids)
        own = torch.nn.functional.one_hot(labels, classes)
        pull = own - (-(distances + own * gap)).softmax(dim=1)
        expected = (pull[:, :, None] * differences / distances[:, :, None]).sum(dim=1) / size
    torch.testing.assert_close(features.grad, expected)


def test_the_gradient_agrees_with_finite_differences() -> None:
    """It is not zero, as it is in the authors' code."""
    features = FEATURES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: _loss_of(f, Y), features)
    _loss_of(features, Y).backward()
    assert features.grad is not None
    assert features.grad.abs().max() > 0.1


def test_features_on_a_centroid_have_a_finite_gradient() -> None:
    for dtype in (torch.float32, torch.float64):
        features = CENTRES[:2].to(dtype).requires_grad_()
        loss = _loss_of(features, torch.tensor([0, 2]), CENTRES.to(dtype))
        loss.backward()
        assert loss.isfinite()
        assert features.grad is not None
        assert features.grad.isfinite().all()


def test_nearly_equal_features_have_distances() -> None:
    """The expanded square of float32 features of this size is wrong by more than their distance, or negative."""
    one = torch.full((1, 2048), 30.0)
    assert distances_between(one, one + 1e-3).item() == pytest.approx(1e-3 * math.sqrt(2048), rel=0.01)
    assert distances_between(one, one).item() == 0


def test_a_class_without_centroid_is_no_part_of_the_loss() -> None:
    known = torch.tensor([True, False, True])
    features = FEATURES.clone().requires_grad_()
    spoilt = CENTRES.clone()
    spoilt[1] = 1e6
    loss = _loss_of(features, Y, spoilt, known)
    without = _loss_of(FEATURES, torch.tensor([0, 1]), CENTRES[[0, 2]], ALL[:2])
    assert loss.item() == pytest.approx(without.item())
    loss.backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_one_class_alone_has_no_centre_loss() -> None:
    known = torch.tensor([False, True, False])
    features = FEATURES.clone().requires_grad_()
    loss = _loss_of(features, torch.tensor([1, 1]), CENTRES, known)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_class_means_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
    means, held = class_means(features, torch.tensor([2, 0, 2]), 3)
    assert means.tolist() == [[3, 4], [0, 0], [3, 1]]
    assert held.tolist() == [True, False, True]
    assert means.dtype is torch.float32


def _begun(labels: Tensor, received: dict[str, Tensor], features: Tensor) -> tuple[Visit, Features]:
    inference = Features(features)
    visit = visit_of(labels, told=NOISY, networks=[None], inference=inference, received=received)
    return visit, inference


def test_without_centroids_from_the_server_a_client_begins_with_its_own() -> None:
    visit, inference = _begun(torch.tensor([2, 0, 2]), {}, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]))
    centroids, known = centroids_for(visit)
    assert centroids.tolist() == [[3, 4], [0, 0], [3, 1]]
    assert known.tolist() == [True, False, True]
    assert inference.passes == 1


def test_of_classes_that_the_server_does_not_know_a_client_takes_its_own() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
    received = {CENTROIDS: torch.tensor([[9.0, 9.0], [8.0, 8.0], [0.0, 0.0]]), KNOWN: torch.tensor([1.0, 1.0, 0.0])}
    visit, inference = _begun(torch.tensor([2, 0, 2]), received, features)
    centroids, known = centroids_for(visit)
    assert centroids.tolist() == [[9, 9], [8, 8], [3, 1]]
    assert known.all()
    assert inference.passes == 1
    visit, inference = _begun(torch.tensor([1, 0, 1]), received, features)  # it lacks the unknown class as well
    centroids, known = centroids_for(visit)
    assert known.tolist() == [True, True, False]
    assert centroids[:2].tolist() == [[9, 9], [8, 8]]
    assert inference.passes == 0


def test_the_whole_loss_is_the_authors_formula() -> None:
    method = DualOptim()
    visit, _ = _begun(Y, {}, FEATURES)
    method.begin(visit)
    table = 3 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    visit.state["label_logits"] = table
    visit.scratch.update({CENTROIDS: CENTRES, KNOWN: ALL, "margin": margin_of(CENTRES, ALL)})
    z, features = Z.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    loss = method.loss(batch_of(Y, z, features=features), visit)
    loss.backward()

    z_written, y_written = Z.clone().requires_grad_(), table.clone().requires_grad_()
    log_y = y_written.log_softmax(dim=1)
    fit = -(z_written.softmax(dim=1) * log_y).sum(dim=1).mean()
    written = fit / 3 - 0.6 * log_y[torch.arange(2), Y].mean() + 0.4 * 3.318150
    written.backward()
    assert loss.item() == pytest.approx(written.item(), abs=1e-5)
    torch.testing.assert_close(z.grad, z_written.grad)
    gradients = visit.scratch["label_gradients"].double()
    torch.testing.assert_close(gradients, y_written.grad, atol=1e-6, rtol=1e-5)
    assert features.grad is not None
    assert features.grad.abs().max() > 0.01


def _visit(model: Any, told: dict[str, Any], method: FedELC | None = None, **values: Any) -> Any:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, local_epochs=2, learning_rate=0.05)
    return train_locally(
        model, *_data(14), method or DualOptim(), config, CPU, derived_generator(1, "t", 4), server_round=4, told=told,
        **values,
    )  # fmt: skip


def test_a_noisy_client_sends_its_features_means_after_training() -> None:
    model: Any = build_model("cnn", 5, seed=1)
    report = _visit(model, NOISY)
    visit = report.visit
    width = model.fc.in_features
    assert {name: value.shape for name, value in visit.sends.items()} == {CENTROIDS: (5, width), KNOWN: (5,)}
    assert visit.sends[KNOWN].tolist() == [1, 1, 1, 1, 0]  # nobody has the fifth class
    assert (visit.sends[CENTROIDS][4] == 0).all()
    expected, _ = class_means(visit.features(), visit.labels, 5)
    assert torch.equal(visit.sends[CENTROIDS], expected)
    for name, rule in DualOptim().sends(NOISY, 5, width).items():
        assert rule.problem(visit.sends[name].numpy()) is None
    assert all(math.isfinite(loss) for loss in report.epoch_losses)


@pytest.mark.parametrize("told", [{}, {"stage": 1, "noisy": False}, CLEAN])
def test_other_clients_send_nothing_and_train_as_with_fedelc(told: dict[str, Any]) -> None:
    models = [build_model("cnn", 5, seed=1) for _ in range(2)]
    report = _visit(models[0], told)
    _visit(models[1], told, FedELC())
    assert report.visit.sends == {}
    assert DualOptim().sends(told, 5, 8) == {}
    assert all(torch.equal(value, models[1].state_dict()[name]) for name, value in models[0].state_dict().items())


def test_the_centre_loss_changes_what_is_learned() -> None:
    """In the authors' code it does not."""
    models: list[Any] = [build_model("cnn", 5, seed=1) for _ in range(2)]
    _visit(models[0], NOISY, DualOptim(centre=0.0))
    _visit(models[1], NOISY, DualOptim(centre=2.0))
    assert not torch.equal(models[0].conv1.weight, models[1].conv1.weight)


def test_a_visit_waits_for_the_device_once_an_epoch_and_once_for_its_centroids() -> None:
    model: Any = build_model("cnn", 5, seed=1)
    received = {CENTROIDS: torch.ones(5, model.fc.in_features), KNOWN: torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])}
    for sent, waits in ((None, 2), (received, 3)):
        with CountedOperations() as operations:
            _visit(build_model("cnn", 5, seed=1), NOISY, received=sent)
        assert operations.counts["aten::_local_scalar_dense"] == waits


def test_the_loss_reads_no_tensor() -> None:
    method, device = DualOptim(), torch.device("meta")
    labels = torch.zeros(9, dtype=torch.int64, device=device)
    visit, _ = _begun(labels, {}, torch.zeros(9, 2, device=device))
    method.begin(visit)
    rows = torch.zeros(4, dtype=torch.int64, device=device)
    logits, features = (torch.zeros(4, n, device=device, requires_grad=True) for n in (3, 2))
    method.loss(batch_of(labels[rows], logits, rows=rows, features=features), visit).backward()
    assert logits.grad is not None
    assert features.grad is not None


def test_its_weights() -> None:
    method = DualOptim()
    assert (method.alpha, method.beta, method.centre, method.strategy) == (0.6, 1.0, 0.4, "daagg")


@pytest.mark.parametrize("args", ["centre=-1", "centre=nan"])
def test_bad_parameters_are_refused(args: str) -> None:
    with pytest.raises(ConfigError, match="centre must be a number at least 0"):
        build_named("method", METHODS, "dualoptim", args)
