from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.method import Batch, Visit
from learning.training import train_locally
from methods import METHODS
from methods.ce import CE
from methods.feddecorr import FedDecorr, correlation
from task import Compute, build_model, classifier, derived_generator
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
X = torch.tensor([[1, 2], [2, 1], [3, 5], [4, 4]], dtype=torch.float64)


def _features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Features that depend on each other."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)))


def test_worked_numbers() -> None:
    assert correlation(X, "paper").item() == pytest.approx(0.75, abs=1e-5)
    assert correlation(X, "authors").item() == pytest.approx(1.125, abs=1e-5)


@pytest.mark.parametrize(("n", "d"), [(9, 4), (4, 9), (6, 6), (2, 5), (5, 1)])
def test_both_forms_are_those_of_the_correlation_matrix(n: int, d: int) -> None:
    features = _features(n, d)
    matrix = np.corrcoef(features.numpy(), rowvar=False).reshape(d, d)
    assert correlation(features, "paper").item() == pytest.approx((matrix**2).mean(), rel=1e-5)
    others = (((n - 1) * matrix) ** 2)[~np.eye(d, dtype=bool)]
    expected = others.mean() / n if d > 1 else 0.0
    assert correlation(features, "authors").item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("n", "times"), [(32, 30), (64, 62)])
def test_the_authors_gradient_is_that_much_stronger(n: int, times: int) -> None:
    """Up to the diagonal, which has no gradient, and the 1 / d^2 that the equation divides by instead of d (d - 1)."""
    d = 5
    gradients = []
    for form in ("authors", "paper"):
        features = _features(n, d).requires_grad_()
        correlation(features, form).backward()
        assert features.grad is not None
        gradients.append(features.grad.norm().item())
    factor = gradients[0] / gradients[1] * (d - 1) / d
    assert factor == pytest.approx((n - 1) ** 2 / n, rel=1e-3)
    assert round(factor) == times


@pytest.mark.parametrize("form", ["paper", "authors"])
def test_the_loss_is_cross_entropy_plus_zeta_times_the_correlation(form: str) -> None:
    features = X[:2] + torch.tensor([[0.0, 0.3], [0.1, 0.0]])
    batch = batch_of(Y, Z, features=features)
    loss = FedDecorr(zeta=0.4, form=form).loss(batch, visit_of(Y))
    torch.testing.assert_close(loss, cross_entropy(Z, Y) + 0.4 * correlation(features, form))
    assert FedDecorr() == FedDecorr(zeta=0.1, form="authors")


@pytest.mark.parametrize("form", ["paper", "authors"])
@pytest.mark.parametrize(("n", "d"), [(5, 3), (3, 5)])
def test_gradients_are_those_of_small_differences(form: str, n: int, d: int) -> None:
    features = _features(n, d).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: correlation(x, form), features)


def test_a_batch_of_one_image_has_cross_entropy_alone() -> None:
    logits, features = Z[:1].clone().requires_grad_(), X[:1].clone().requires_grad_()
    loss = FedDecorr().loss(batch_of(Y[:1], logits, features=features), visit_of(Y))
    loss.backward()
    assert loss.item() == pytest.approx(0.241311, abs=1e-5)
    assert features.grad is None or not features.grad.any()
    assert logits.grad is not None
    assert logits.grad.any()


@pytest.mark.parametrize("form", ["paper", "authors"])
def test_dead_features_do_no_harm(form: str) -> None:
    features = torch.cat([X, torch.zeros(4, 3)], dim=1).float().requires_grad_()
    value = correlation(features, form)
    value.backward()
    assert value.item() == pytest.approx(3 / 25 if form == "paper" else 4.5 * 2 / 20 / 4, rel=1e-5)
    assert features.grad is not None
    assert features.grad.isfinite().all()


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 1000), st.floats(0.1, 50), st.floats(-50, 50))
def test_the_papers_form_lies_between_no_and_full_correlation_whatever_the_scale(
    n: int, d: int, seed: int, scale: float, shift: float
) -> None:
    features = _features(n, d, seed)
    assume(features.var(dim=0).min() > 0.01)  # so that the added 1e-8 does not matter
    value = correlation(features, "paper").item()
    assert 1 / d - 1e-4 <= value <= 1 + 1e-9
    assert correlation(features * scale + shift, "paper").item() == pytest.approx(value, rel=1e-3)


def _visit(method: CE | FedDecorr) -> torch.Tensor:
    """The features of all images after a visit, (24, 64)."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 5, 24))
    config = RunConfig(model="cnn", image_size=32, batch_size=8, local_epochs=2, learning_rate=0.1)
    model = build_model("cnn", 5, seed=3)
    train_locally(model, images, labels, method, config, CPU, derived_generator(1, "test"))
    found: list[torch.Tensor] = []
    classifier(model).register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0].detach()))
    model(images.permute(0, 3, 1, 2).float() / 255)
    return found[0]


@dataclass(frozen=True)
class _Watching(FedDecorr):
    """Compares the features with the logits that the classifier makes of them."""

    def loss(self, batch: Batch, visit: Visit) -> torch.Tensor:
        view = batch.views[0][0]
        assert view.features is not None
        assert view.features.shape == (8, 64)
        assert torch.equal(classifier(visit.networks[0])(view.features), view.logits)
        loss = super().loss(batch, visit)
        (gradient,) = torch.autograd.grad(correlation(view.features, self.form), view.features, retain_graph=True)
        assert gradient.any()
        return loss


def test_features_are_what_the_classifier_gets_and_training_decorrelates_them() -> None:
    plain, pressed = _visit(CE()), _visit(_Watching(zeta=5.0))
    assert torch.equal(_visit(FedDecorr(zeta=0.0)), plain)
    assert correlation(pressed, "paper") < 0.9 * correlation(plain, "paper")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("zeta=-0.1", "zeta must be a number at least 0"),
        ("zeta='x'", "zeta must be a number at least 0"),
        ("form='theirs'", "form must be one of authors, paper"),
    ],
)
def test_bad_parameters(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"'method-args' is .*; feddecorr refuses it: {sentence}"):
        build_named("method", METHODS, "feddecorr", args)
