from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.training import train_locally
from methods import METHODS
from methods.ce import CE
from methods.forward import Forward
from task import Compute, build_model, derived_generator
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
T = [[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]]
UNIT = np.eye(3).tolist()


def _loss(
    logits: torch.Tensor, labels: torch.Tensor = Y, matrix: list[list[float]] = T, **parameters: Any
) -> torch.Tensor:
    method = Forward(**parameters)
    flat = [value for row in matrix for value in row]
    visit = visit_of(labels, logits.shape[1], told={"transition": flat})
    method.begin(visit)
    return method.loss(batch_of(labels, logits), visit)


@pytest.mark.parametrize(
    ("correction", "images", "mean"),
    [("forward", [0.436945, 1.277998], 0.857472), ("backward", [-0.031416, 2.126291], 1.047437)],
)
def test_worked_numbers(correction: str, images: list[float], mean: float) -> None:
    assert _loss(Z, correction=correction).item() == pytest.approx(mean, abs=1e-5)
    for row, expected in enumerate(images):
        one = _loss(Z[row : row + 1], Y[row : row + 1], correction=correction)
        assert one.item() == pytest.approx(expected, abs=1e-5)
    assert Forward() == Forward(transition="estimate", smoothing=1.0, correction="forward")


@pytest.mark.parametrize("correction", ["forward", "backward"])
def test_the_gradient_is_that_of_the_formula_in_probabilities(correction: str) -> None:
    logits, plain = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    _loss(logits, correction=correction).backward()
    p, matrix = plain.softmax(dim=1), torch.tensor(T, dtype=torch.float64)
    if correction == "forward":
        expected = -(p @ matrix).gather(1, Y[:, None]).log().mean()
    else:
        expected = (-p.log() @ torch.linalg.inv(matrix).T).gather(1, Y[:, None]).mean()
    expected.backward()
    torch.testing.assert_close(logits.grad, plain.grad, atol=1e-6, rtol=1e-6)


def test_rows_are_true_classes() -> None:
    """Class 0 is often labelled 2, and never the other way round."""
    matrix = [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    sure_of_0 = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64)
    sure_of_2 = torch.tensor([[0.0, 0.0, 20.0]], dtype=torch.float64)
    assert _loss(sure_of_0, torch.tensor([2]), matrix).item() == pytest.approx(np.log(2), abs=1e-6)
    assert _loss(sure_of_2, torch.tensor([0]), matrix).item() == pytest.approx(20 + np.log(2), abs=1e-6)


@given(st.lists(st.floats(-300, 300), min_size=3, max_size=3), st.integers(0, 2))
def test_without_noise_it_is_cross_entropy(logits: list[float], label: int) -> None:
    values, labels = torch.tensor([logits], dtype=torch.float64), torch.tensor([label])
    for correction in ("forward", "backward"):
        loss = _loss(values, labels, UNIT, correction=correction)
        torch.testing.assert_close(loss, cross_entropy(values, labels))


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.integers(0, 2))
def test_backward_is_cross_entropy_on_true_labels_in_expectation(logits: list[float], true: int) -> None:
    values = torch.tensor([logits], dtype=torch.float64)
    mean = sum(T[true][label] * _loss(values, torch.tensor([label]), correction="backward") for label in range(3))
    torch.testing.assert_close(mean, cross_entropy(values, torch.tensor([true])), atol=1e-5, rtol=1e-5)


def test_a_label_without_probability_in_float32() -> None:
    logits = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    loss = _loss(logits, torch.tensor([2]))
    loss.backward()
    assert loss.item() == pytest.approx(300 - np.log(0.2), rel=1e-6)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0, 0.0]]))


def test_a_label_that_no_class_gets() -> None:
    matrix = [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.3, 0.7, 0.0]]
    with pytest.raises(ConfigError, match="gives label 2 to no class, but there are images with it; column 2 of the"):
        _loss(Z, matrix=matrix)
    assert _loss(Z, torch.tensor([0, 1]), matrix).isfinite()


def test_backward_refuses_a_matrix_without_inverse_and_forward_does_not() -> None:
    matrix = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]
    with pytest.raises(ConfigError, match=r"the transition matrix is singular.* correction must be 'forward'"):
        _loss(Z, matrix=matrix, correction="backward")
    assert _loss(Z, matrix=matrix).isfinite()


def test_a_matrix_of_another_size_or_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="sent 4 numbers of a transition matrix; for 3 classes there must be 9"):
        _loss(Z, matrix=[[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ConfigError, match="sent 0 numbers"):
        _loss(Z, matrix=[])


def test_a_visit_uses_the_matrix_that_the_server_sent() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 3, 8))
    config = RunConfig(model="cnn", image_size=32, batch_size=8)

    def first_loss(method: CE | Forward, matrix: list[list[float]]) -> float:
        told = {"transition": [value for row in matrix for value in row]}
        model = build_model("cnn", 3, seed=3)
        report = train_locally(model, images, labels, method, config, CPU, derived_generator(1, "test"), told=told)
        return report.epoch_losses[0]

    plain = first_loss(CE(), UNIT)
    assert first_loss(Forward(), UNIT) == pytest.approx(plain, rel=1e-6)
    assert abs(first_loss(Forward(), T) - plain) > 1e-3


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("correction='sideways'", "correction must be one of forward, backward"),
        ("transition='guess'", "transition must be estimate, clothing1m, or the absolute path of a file on the server"),
        ("transition=3", "transition must be estimate, clothing1m, or the absolute path"),
        ("smoothing=-1", "smoothing must be a number at least 0"),
        ("smoothing='one'", "smoothing must be a number at least 0"),
    ],
)
def test_bad_parameters(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"'method-args' is .*; forward refuses it: {sentence}"):
        build_named("method", METHODS, "forward", args)


def test_a_path_is_on_the_server_and_need_not_exist_here() -> None:
    args = "transition='/nowhere/t.txt' smoothing=0 correction='backward'"
    assert build_named("method", METHODS, "forward", args).transition == "/nowhere/t.txt"
