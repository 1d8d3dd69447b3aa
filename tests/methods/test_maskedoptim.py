"""MaskedOptim on a client: which labels it holds on to, and the shortened update that it returns."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from config.combinations import check_combination
from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods import METHODS, with_own_strategy
from methods.fedelc import FedELC
from methods.maskedoptim import MaskedOptim
from server_app.strategy import make_strategy
from task import Compute, build_model, derived_generator
from tests.batches_of import Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations
from tests.methods.test_fedelc import NOISY, _data

CPU = Compute(torch.device("cpu"), torch.float32)
FIVE = torch.cat([Z, torch.tensor([[0.0, 0, 0], [3, 0, 0], [-1, 2, 0]], dtype=torch.float64)])
LABELS = torch.tensor([0, 2, 1, 0, 0])


def _noisy_visit(method: FedELC, labels: Tensor, device: str = "cpu", **values: Any) -> Visit:
    network = torch.nn.Linear(2, 3, device=device)
    visit = visit_of(labels, told=NOISY, networks=[network], **values)
    method.begin(visit)
    return visit


def test_the_smallest_losses_are_kept_by_hand() -> None:
    losses = torch.nn.functional.cross_entropy(FIVE, LABELS, reduction="none")
    assert losses.tolist() == pytest.approx([0.241311, 1.453564, 1.098612, 0.094923, 3.169846], abs=1e-5)
    assert MaskedOptim().trusted(batch_of(LABELS, FIVE)).tolist() == [1, 1, 1, 1, 0]


def test_l_o_of_the_kept_by_hand() -> None:
    """It is what alpha multiplies: the sum over those kept, divided by all."""
    for keep, expected in ((0.8, 7.26366e-5), (1.0, 9.07957e-5)):
        methods = [MaskedOptim(alpha=alpha, keep=keep) for alpha in (1000.0, 0.0)]
        with_it, without = (
            method.loss(batch_of(LABELS, FIVE), _noisy_visit(method, LABELS)).item() for method in methods
        )
        assert (with_it - without) / 1000 == pytest.approx(expected, abs=1e-7)  # float32


@pytest.mark.parametrize(
    ("keep", "size", "kept"), [(0.8, 5, 4), (0.8, 64, 51), (0.29, 100, 29), (0.8, 1, 1), (0.1, 5, 1), (1.0, 7, 7)]
)
def test_how_many_are_kept(keep: float, size: int, kept: int) -> None:
    logits, labels = torch.randn(size, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(size).long()
    weights = MaskedOptim(keep=keep).trusted(batch_of(labels, logits))
    assert weights.sum() == kept
    assert set(weights.tolist()) <= {0.0, 1.0}


def test_of_equal_losses_the_first_are_kept() -> None:
    assert MaskedOptim().trusted(batch_of(torch.zeros(5).long(), torch.zeros(5, 3))).tolist() == [1, 1, 1, 1, 0]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0, 2), st.floats(0, 2), st.floats(0.01, 1))
def test_gradients_are_those_of_the_written_loss(seed: int, size: int, alpha: float, beta: float, keep: float) -> None:
    """For the network and for the labels, by autograd on the formula; which are kept has no gradient."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 3, generator=draw, dtype=torch.float64)
    table = 3 * torch.randn(size, 3, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 3, (size,), generator=draw)
    method = MaskedOptim(alpha=alpha, beta=beta, keep=keep)
    visit = _noisy_visit(method, labels, state={"label_logits": table})
    z = logits.clone().requires_grad_()
    loss = method.loss(batch_of(labels, z), visit)
    loss.backward()

    z_written, y_written = logits.clone().requires_grad_(), table.clone().requires_grad_()
    p, y_d = z_written.softmax(dim=1), y_written.softmax(dim=1)
    losses = -p.detach()[torch.arange(size), labels].log()
    kept = sorted(range(size), key=lambda row: losses[row].item())[: max(1, math.floor(keep * size + 1e-9))]
    written = (p * (p / y_d).log()).sum() / size / 3 - beta * (p * p.log()).sum() / size / 3
    written = written - alpha * sum(y_d[row, labels[row]].log() for row in kept) / size
    written.backward()
    torch.testing.assert_close(loss, written)
    torch.testing.assert_close(z.grad, z_written.grad)
    torch.testing.assert_close(visit.scratch["label_gradients"], y_written.grad)


def test_all_kept_and_the_whole_update_are_fedelc() -> None:
    states = []
    for method in (FedELC(alpha=0.3, beta=0.4), MaskedOptim(alpha=0.3, beta=0.4, keep=1.0, update_scale=1.0)):
        model = build_model("cnn", 5, seed=1)
        report = _visit(model, method, NOISY)
        states.append({**model.state_dict(), **report.visit.state})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def _visit(model: Any, method: FedELC, told: dict[str, Any]) -> Any:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, local_epochs=2, learning_rate=0.05)
    return train_locally(
        model, *_data(14), method, config, CPU, derived_generator(1, "t", 4), server_round=4, told=told
    )


def _update(method: FedELC, told: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The weights that a visit begins with, those that it returns, and its state."""
    model = build_model("cnn", 5, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = _visit(model, method, told)
    return before, dict(model.state_dict()), report.visit.state


def test_a_noisy_client_returns_a_shortened_update() -> None:
    """Of weights and BatchNorm's statistics; counters count what was trained, and labels see the trained network."""
    before, whole, state = _update(MaskedOptim(update_scale=1.0), NOISY)
    _, mixed, mixed_state = _update(MaskedOptim(), NOISY)
    for name, value in whole.items():
        expected = 0.2 * before[name] + 0.8 * value if value.is_floating_point() else value
        torch.testing.assert_close(mixed[name], expected)
    assert any(name.endswith("running_mean") and not torch.equal(mixed[name], whole[name]) for name in whole)
    assert any(name.endswith("num_batches_tracked") and mixed[name] > before[name] for name in whole)
    assert torch.equal(state["label_logits"], mixed_state["label_logits"])


@pytest.mark.parametrize("told", [{}, {"stage": 2, "noisy": False, "stage-2-began": 2}])
def test_other_clients_return_their_whole_update(told: dict[str, Any]) -> None:
    _, whole, _ = _update(FedELC(), told)
    _, found, _ = _update(MaskedOptim(), told)
    assert all(torch.equal(value, found[name]) for name, value in whole.items())


def test_nothing_waits_for_the_device() -> None:
    with CountedOperations() as operations:
        _visit(build_model("cnn", 5, seed=1), MaskedOptim(), NOISY)
    assert operations.counts["aten::_local_scalar_dense"] == 2  # the epochs
    method, labels = MaskedOptim(), torch.zeros(9, dtype=torch.int64, device="meta")
    visit = _noisy_visit(method, labels, "meta")
    logits = torch.zeros(4, 3, device="meta", requires_grad=True)
    rows = torch.zeros(4, dtype=torch.int64, device="meta")
    method.loss(batch_of(labels[rows], logits, rows=rows), visit).backward()
    assert logits.grad is not None


def test_its_own_stage_1_weights_and_strategy() -> None:
    method = MaskedOptim()
    assert (method.alpha, method.beta, method.first_stage(120)) == (0.5, 0.1, 30)
    config = with_own_strategy(RunConfig(method="maskedoptim"))
    assert config.strategy == "rfa"
    check_combination(config, method, make_strategy(config))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("keep=0", "keep must be a number above 0 and at most 1"),
        ("keep=1.1", "keep must be a number above 0 and at most 1"),
        ("update-scale=0", "update-scale must be a number above 0 and at most 1"),
        ("alpha=-1", "alpha must be a number at least 0"),
    ],
)
def test_bad_parameters_are_refused(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_named("method", METHODS, "maskedoptim", args)
