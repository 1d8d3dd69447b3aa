"""FedELC on a client: losses, gradients and label updates by hand and against autograd, and whole visits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods import METHODS
from methods.fedelc import FedELC
from task import Compute, build_model, derived_generator
from tests.batches_of import ZB, Y, Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)
NOISY = {"stage": 2, "noisy": True, "stage-2-began": 3}
CODE: dict[str, Any] = {"alpha": 0.5, "beta": 0.2}  # the reference code's; the worked numbers are for these


class Predicts:
    """Stands in for `Inference`: the network answers the given logits on all images."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def on_all(self, network: Any) -> Tensor:
        return self.logits


def _noisy_visit(method: FedELC, labels: Tensor = Y, num_classes: int = 3, predicted: Tensor = ZB) -> Visit:
    visit = visit_of(labels, num_classes, told=NOISY, networks=[None], inference=Predicts(predicted))
    method.begin(visit)
    return visit


def _written(logits: Tensor, label_logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """L as the paper writes it."""
    p, y_d = logits.softmax(dim=1), label_logits.softmax(dim=1)
    compatibility = (p * (p / y_d).log()).sum(dim=1).mean()
    original = -y_d[torch.arange(len(labels)), labels].log().mean()
    entropy = -(p * p.log()).sum(dim=1).mean()
    return compatibility / p.shape[1] + alpha * original + beta * entropy / p.shape[1]


def _assert_close(found: Tensor, expected: list[list[float]], tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=0)


def test_the_loss_of_a_noisy_client_by_hand() -> None:
    for values, loss in ((CODE, 1.421719), ({}, 1.501492)):
        method = FedELC(**values)
        visit = _noisy_visit(method)
        assert visit.metrics == {"noisy": 1.0}
        assert method.loss(batch_of(Y, Z), visit).item() == pytest.approx(loss, abs=1e-5)
    parts = {"compatibility": (0.0, 0.0, 4.105419 / 3), "entropy": (0.0, 1.0, (4.105419 + 0.798007) / 3)}
    for alpha, beta, loss in parts.values():
        method = FedELC(alpha=alpha, beta=beta)
        assert method.loss(batch_of(Y, Z), _noisy_visit(method)).item() == pytest.approx(loss, abs=1e-5)
    one, other = FedELC(alpha=1000.0), FedELC(alpha=0.0)
    losses = [method.loss(batch_of(Y, Z), _noisy_visit(method)).item() for method in (one, other)]
    assert (losses[0] - losses[1]) / 1000 == pytest.approx(9.07957e-5, abs=1e-7)


def test_one_update_of_the_labels_by_hand() -> None:
    method = FedELC(**CODE, label_rate=6.0)
    visit = _noisy_visit(method)
    method.loss(batch_of(Y, Z), visit)
    gradients = visit.scratch["label_gradients"]
    _assert_close(gradients, [[0.035696, -0.029196, -0.006500], [-0.031876, -0.095797, 0.127673]])
    _assert_close(visit.state["label_logits"], [[10, 0, 0], [0, 0, 10]], 0)  # only after the epoch
    method.end_epoch(visit)
    _assert_close(visit.state["label_logits"], [[9.785824, 0.175177, 0.038999], [0.191253, 0.574784, 9.233963]])
    _assert_close(gradients, [[0, 0, 0], [0, 0, 0]], 0)
    assert visit.state["label_logits"].dtype is torch.float32


def test_the_merge_at_the_end_by_hand() -> None:
    method = FedELC(**CODE, label_rate=1000.0)
    visit = _noisy_visit(method)
    method.loss(batch_of(Y, Z), visit)
    method.end_epoch(visit)
    method.end(visit)
    logits = visit.state["label_logits"]
    _assert_close(logits / 10, [[0.174104, 0.787048, 0.038848], [0.144198, 0.618059, 0.237742]])
    _assert_close(logits.softmax(dim=1), [[0.002172, 0.997267, 0.000562], [0.008487, 0.969884, 0.021628]])
    assert visit.corrected is not None
    assert visit.corrected.tolist() == [1, 1]


def test_labels_start_nearly_certain() -> None:
    labels = torch.arange(14)
    state = _noisy_visit(FedELC(), labels, 14).state
    assert list(state) == ["label_logits"]
    assert state["label_logits"].dtype is torch.float32
    assert torch.equal(state["label_logits"], 10 * torch.eye(14))
    assert state["label_logits"].softmax(dim=1).diagonal().tolist() == pytest.approx([0.999410] * 14, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 5), st.floats(0, 2), st.floats(0, 2))
def test_gradients_are_those_of_the_written_loss(seed: int, size: int, classes: int, alpha: float, beta: float) -> None:
    """For the network and for the labels, by autograd on the formula."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=draw, dtype=torch.float64)
    label_logits = 3 * torch.randn(size + 2, classes, generator=draw, dtype=torch.float64)
    rows = torch.randperm(size + 2, generator=draw)[:size]
    labels = torch.randint(0, classes, (size + 2,), generator=draw)

    method = FedELC(alpha=alpha, beta=beta)
    visit = visit_of(labels, classes, told=NOISY, state={"label_logits": label_logits})
    method.begin(visit)
    z = logits.clone().requires_grad_()
    loss = method.loss(batch_of(labels[rows], z, rows=rows), visit)
    loss.backward()

    z_written, table = logits.clone().requires_grad_(), label_logits.clone().requires_grad_()
    written = _written(z_written, table[rows], labels[rows], alpha, beta)
    written.backward()
    torch.testing.assert_close(loss, written)
    torch.testing.assert_close(z.grad, z_written.grad)
    torch.testing.assert_close(visit.scratch["label_gradients"], table.grad)
    assert not visit.scratch["label_gradients"].requires_grad


@pytest.mark.parametrize("told", [{}, {"stage": 1, "noisy": False}, {"stage": 2, "noisy": False, "stage-2-began": 2}])
def test_in_stage_1_and_on_clean_clients_labels_are_trusted(told: dict[str, Any]) -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    method = FedELC()
    visit = visit_of(labels, told=told, state={"label_logits": torch.zeros(100, 3)})  # from when it was called noisy
    method.begin(visit)
    assert method.loss(batch_of(Y, Z), visit).item() == pytest.approx(1.025278, abs=1e-5)
    method.end_epoch(visit)
    method.end(visit)
    assert visit.metrics == {"noisy": 0.0}
    assert visit.state == {}
    assert visit.corrected is not None
    assert torch.equal(visit.corrected, labels)
    plain = FedELC(adjustment=0.0)
    plain.begin(visit)
    assert plain.loss(batch_of(Y, Z), visit).item() == pytest.approx(cross_entropy(Z, Y).item())


def test_images_that_no_batch_of_an_epoch_holds_keep_their_labels_in_it() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    method = FedELC()
    visit = _noisy_visit(method, labels)
    start = visit.state["label_logits"]
    method.end_epoch(visit)  # a partition smaller than a batch
    assert torch.equal(visit.state["label_logits"], start)
    rows = torch.tensor([3, 1])
    method.loss(batch_of(labels[rows], Z, rows=rows), visit)
    method.end_epoch(visit)
    changed = (visit.state["label_logits"] != start).any(dim=1)
    assert changed.tolist() == [False, True, False, True, False]
    after = visit.state["label_logits"]
    method.end_epoch(visit)  # nor does an epoch act twice
    assert torch.equal(visit.state["label_logits"], after)


def test_a_batch_of_one_and_an_absent_class() -> None:
    method = FedELC()
    visit = _noisy_visit(method, torch.tensor([2, 2]))
    logits = Z[:1].clone().requires_grad_()
    loss = method.loss(batch_of(torch.tensor([2]), logits, rows=torch.tensor([1])), visit)
    loss.backward()
    method.end_epoch(visit)
    method.end(visit)
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert visit.state["label_logits"].isfinite().all()


def test_what_the_caller_kept_is_not_written_into() -> None:
    """A visit that fails is repeated from the state before it."""
    method = FedELC()
    kept = 10 * torch.eye(3)[Y]
    before = kept.clone()
    visit = visit_of(Y, told=NOISY, networks=[None], inference=Predicts(ZB), state={"label_logits": kept})
    method.begin(visit)
    method.loss(batch_of(Y, Z), visit)
    method.end_epoch(visit)
    method.end(visit)
    assert torch.equal(kept, before)


def _data(count: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))
    return images, torch.from_numpy(rng.integers(0, 4, count))  # the fifth class is absent


def _visit(model: Any, told: dict[str, Any], state: Any = None, *, server_round: int = 4, count: int = 14) -> Any:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, local_epochs=2, learning_rate=0.05)
    return train_locally(
        model, *_data(count), FedELC(), config, CPU, derived_generator(1, "t", server_round),
        server_round=server_round, told=told, state=state,
    )  # fmt: skip


def test_a_noisy_client_passes_its_labels_on_to_the_next_visit() -> None:
    model = build_model("cnn", 5, seed=1)
    first = _visit(model, NOISY)
    assert set(first.visit.state) == {"label_logits"}
    handed = {name: value.clone() for name, value in first.visit.state.items()}
    second = _visit(model, NOISY, handed, server_round=7)
    for report in (first, second):
        visit = report.visit
        assert all(math.isfinite(loss) for loss in report.epoch_losses)
        logits = visit.state["label_logits"]
        assert logits.shape == (14, 5)
        assert logits.sum(dim=1).tolist() == pytest.approx([10.0] * 14, rel=1e-5)  # ten times probabilities
        assert torch.equal(visit.corrected, logits.argmax(dim=1))
    again = build_model("cnn", 5, seed=1)
    _visit(again, NOISY)
    afresh = _visit(again, NOISY, server_round=7)
    assert not torch.equal(afresh.visit.state["label_logits"], second.visit.state["label_logits"])


def test_the_merge_is_of_learned_labels_and_the_trained_networks_answers() -> None:
    """Twice the new label less the network's answer, in evaluation mode, is the learned one: a probability."""
    model = build_model("cnn", 5, seed=1)
    report = _visit(model, NOISY)
    images, _ = _data(14)
    answers = model.eval()((images.float() / 255).sub(torch.tensor([0.485, 0.456, 0.406])).div(
        torch.tensor([0.229, 0.224, 0.225])).permute(0, 3, 1, 2)).softmax(dim=1)  # fmt: skip
    learned = 2 * report.visit.state["label_logits"] / 10 - answers
    assert learned.min() > -1e-4
    assert learned.sum(dim=1).tolist() == pytest.approx([1.0] * 14, abs=1e-4)


def test_looking_at_all_images_leaves_no_trace_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for look in (True, False):
        if not look:
            monkeypatch.setattr(FedELC, "end", lambda self, visit: None)
        model = build_model("cnn", 5, seed=1)
        _visit(model, NOISY)
        assert model.training
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert any(name.endswith("running_mean") for name in weights[0])


def test_a_visit_waits_for_the_device_once_an_epoch() -> None:
    for told in (NOISY, {}):
        with CountedOperations() as operations:
            _visit(build_model("cnn", 5, seed=1), told)
        assert operations.counts["aten::_local_scalar_dense"] == 2  # 6 steps


def test_wrong_labels_are_found() -> None:
    """Brightness tells the class and a quarter of the labels is wrong; after some visits most of those are right."""
    truth = torch.arange(80) % 4
    images = (40 + 55 * truth.to(torch.uint8))[:, None, None, None].expand(80, 16, 16, 3).contiguous()
    labels = truth.clone()
    labels[:20] = (truth[:20] + torch.arange(20) % 3 + 1) % 4  # another class, each as often
    config = RunConfig(model="cnn", image_size=16, batch_size=16, local_epochs=5, learning_rate=0.05)
    model = build_model("cnn", 5, seed=1)
    state: dict[str, Tensor] = {}
    for server_round in range(1, 9):
        told = NOISY if server_round > 3 else {}
        report = train_locally(
            model, images, labels, FedELC(), config, CPU, derived_generator(1, "t", server_round),
            server_round=server_round, told=told, state=state,
        )  # fmt: skip
        state = report.visit.state
    assert (labels == truth).float().mean() == 0.75
    assert report.visit.corrected is not None
    assert (report.visit.corrected == truth).float().mean() > 0.85


def test_it_declares_what_it_remembers_and_corrects() -> None:
    assert FedELC.remembers
    assert FedELC.corrects
    assert (FedELC().alpha, FedELC().beta) == (0.2, 0.5)  # the paper's


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("alpha=-1", "alpha must be a number at least 0"),
        ("beta=nan", "beta must be a number at least 0"),
        ("sharpness=0", "sharpness must be a number above 0"),
        ("label-rate=inf", "label-rate must be a number above 0"),
    ],
)
def test_bad_parameters_are_refused(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_named("method", METHODS, "fedelc", args)
