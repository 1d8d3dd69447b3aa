import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.named import build_named
from config.run_config import ConfigError
from methods import METHODS
from methods.sce import SCE
from tests.batches_of import Y, Z, batch_of, visit_of


def _loss(logits: torch.Tensor, labels: torch.Tensor = Y, **parameters: float) -> torch.Tensor:
    return SCE(**parameters).loss(batch_of(labels, logits), visit_of(labels, logits.shape[1]))


@pytest.mark.parametrize(
    ("alpha", "beta", "expected"),
    [(0.1, 1.0, 4.600883), (0.01, 1.0, 4.524613), (6.0, 0.1, 5.536239), (0.0, 1.0, 4.516139), (1.0, 0.0, 0.847437)],
)
def test_worked_numbers(alpha: float, beta: float, expected: float) -> None:
    assert _loss(Z, alpha=alpha, beta=beta).item() == pytest.approx(expected, abs=1e-5)


def test_the_defaults_and_each_image() -> None:
    assert _loss(Z).item() == pytest.approx(4.600883, abs=1e-5)
    for row, expected in enumerate((1.974724, 7.057554)):
        one = _loss(Z[row : row + 1], Y[row : row + 1], alpha=0, beta=1)
        assert one.item() == pytest.approx(expected, abs=1e-5)


def test_the_logarithm_of_the_floor_is_what_zeros_of_the_label_count_for() -> None:
    assert _loss(Z, alpha=0, floor=math.exp(-6)).item() == pytest.approx(6 * 0.490334, abs=1e-5)


def test_the_gradient_is_that_of_the_formula() -> None:
    """By the logits: alpha (p - onehot) - beta A p_y (p - onehot), over the batch."""
    logits = Z.clone().requires_grad_()
    _loss(logits, alpha=0.3, beta=0.7).backward()
    p = Z.softmax(dim=1)
    away = p - torch.eye(3, dtype=torch.float64)[Y]
    expected = away * (0.3 - 0.7 * math.log(1e-4) * p.gather(1, Y[:, None])) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_a_label_without_probability_in_float32() -> None:
    logits = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    loss = _loss(logits, torch.tensor([2]))
    loss.backward()
    assert loss.item() == pytest.approx(0.1 * 600 - math.log(1e-4), rel=1e-6)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.1, 0.0, -0.1]]))


@given(
    st.lists(st.floats(-200, 200, width=32), min_size=4, max_size=4),
    st.integers(0, 3),
    st.floats(0.001, 10),
    st.floats(0, 10),
)
def test_it_is_never_negative_and_no_less_than_its_part_of_cross_entropy(
    logits: list[float], label: int, alpha: float, beta: float
) -> None:
    values, labels = torch.tensor([logits], dtype=torch.float64), torch.tensor([label])
    loss = _loss(values, labels, alpha=alpha, beta=beta).item()
    entropy = torch.nn.functional.cross_entropy(values, labels).item()
    assert loss >= alpha * entropy * (1 - 1e-9) >= 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("alpha=-1", "alpha must be a number at least 0"),
        ("beta=inf", "beta must be a number at least 0"),
        ("beta='much'", "beta must be a number at least 0"),
        ("floor=0", "floor must be a number above 0 and below 1"),
        ("floor=1.0", "floor must be a number above 0 and below 1"),
        ("alpha=0 beta=0", "alpha must be above 0 if beta is 0"),
    ],
)
def test_bad_parameters(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"'method-args' is .*; sce refuses it: {sentence}"):
        build_named("method", METHODS, "sce", args)
