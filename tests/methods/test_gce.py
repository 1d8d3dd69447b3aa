import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from config.named import build_named
from config.run_config import ConfigError
from methods import METHODS
from methods.gce import GCE
from tests.batches_of import Y, Z, batch_of, visit_of


def _loss(logits: torch.Tensor, labels: torch.Tensor = Y, **parameters: float) -> torch.Tensor:
    return GCE(**parameters).loss(batch_of(labels, logits), visit_of(labels, logits.shape[1]))


def test_worked_numbers() -> None:
    assert _loss(Z).item() == pytest.approx(0.567087, abs=1e-5)
    assert _loss(Z[:1], Y[:1]).item() == pytest.approx(0.222031, abs=1e-5)
    assert _loss(Z[1:], Y[1:]).item() == pytest.approx(0.912144, abs=1e-5)
    assert _loss(Z, truncation=0.5).item() == pytest.approx(0.385607, abs=1e-5)


@pytest.mark.parametrize(("p", "expected"), [(0.2, 0.965527), (0.5, 0.549183), (0.9, 0.101569)])
def test_worked_numbers_of_one_probability(p: float, expected: float) -> None:
    logits = torch.tensor([[p, 1 - p]], dtype=torch.float64).log()
    assert _loss(logits, torch.tensor([0])).item() == pytest.approx(expected, abs=1e-5)


def test_the_worked_gradient_and_its_closed_form() -> None:
    logits = Z.clone().requires_grad_()
    _loss(logits).backward()
    worked = [[-0.090540, 0.074023, 0.016517], [0.034589, 0.103913, -0.138502]]
    torch.testing.assert_close(logits.grad, torch.tensor(worked, dtype=torch.float64), atol=1e-5, rtol=0)
    p = Z.softmax(dim=1)
    closed = p.gather(1, Y[:, None]) ** 0.7 * (p - torch.eye(3, dtype=torch.float64)[Y]) / 2
    torch.testing.assert_close(logits.grad, closed)


def test_what_is_truncated_has_the_constant_and_no_gradient() -> None:
    logits = Z.clone().requires_grad_()
    _loss(logits, truncation=0.5).backward()
    whole = Z.clone().requires_grad_()
    _loss(whole).backward()
    assert logits.grad is not None
    assert whole.grad is not None
    assert torch.equal(logits.grad[0], whole.grad[0])  # p_y = 0.79
    assert not logits.grad[1].any()  # p_y = 0.23
    even = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    _loss(even, torch.tensor([0]), truncation=0.5).backward()  # p_y = k
    assert even.grad is not None
    assert not even.grad.any()


@pytest.mark.parametrize("q", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("p_y", [1e-4, 1e-9, 1e-30])
def test_float32_gradients_of_small_probabilities_are_neither_lost_nor_exploded(q: float, p_y: float) -> None:
    exact = torch.tensor([[0.0, torch.tensor(p_y, dtype=torch.float64).log()]], dtype=torch.float64)
    logits = exact.float().requires_grad_()
    _loss(logits, torch.tensor([1]), q=q).backward()
    p = exact.softmax(dim=1)
    closed = p[:, 1:] ** q * (p - torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), closed, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("truncation", [0.0, 0.5])
def test_a_label_without_probability_in_float32(truncation: float) -> None:
    logits = torch.tensor([[300.0, 0.0, -300.0], [0.0, 1.0, 0.0]], requires_grad=True)
    loss = _loss(logits, torch.tensor([2, 1]), q=1.0, truncation=truncation)
    loss.backward()
    known = 1 - logits[1].softmax(dim=0)[1].item()
    assert loss.item() == pytest.approx(((1 - truncation) + known) / 2)
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad[1].all()


@given(
    st.lists(st.floats(-50, 50), min_size=4, max_size=4),
    st.integers(0, 3),
    st.floats(0, 1, exclude_min=True),
)
def test_it_lies_between_its_limits(logits: list[float], label: int, q: float) -> None:
    """Between MAE, at q = 1, and cross-entropy, towards 0."""
    values, labels = torch.tensor([logits], dtype=torch.float64), torch.tensor([label])
    absolute = _loss(values, labels, q=1).item()
    loss = _loss(values, labels, q=max(q, 1e-6)).item()
    assert absolute - 1e-9 <= loss <= cross_entropy(values, labels).item() + 1e-9


def test_a_small_q_is_near_cross_entropy_in_float32() -> None:
    assert _loss(Z.float(), q=1e-3).item() == pytest.approx(0.847437, abs=2e-3)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("q=0", "q must be a number above 0 and at most 1; its limit at 0 is cross-entropy, method='ce'"),
        ("q=1.5", "q must be a number above 0 and at most 1"),
        ("q=nan", "q must be a number above 0"),
        ("q=true", "q must be a number above 0"),
        ("truncation=1", "truncation must be a number at least 0 and below 1"),
        ("truncation=-0.5", "truncation must be a number at least 0 and below 1"),
        ("truncation='half'", "truncation must be a number at least 0 and below 1"),
    ],
)
def test_bad_parameters(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"'method-args' is .*; gce refuses it: {sentence}"):
        build_named("method", METHODS, "gce", args)
