"""The prior of a client's labels, and the loss that allows for it, against numbers worked by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from methods.logit_adjustment import adjusted_cross_entropy, log_prior, shares
from tests.batches_of import Y, Z

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)


def test_the_loss_by_hand() -> None:
    prior = log_prior(LABELS, 3)
    assert prior.dtype is torch.float32
    assert prior.tolist() == pytest.approx([-0.693147, -1.203973, -1.609438], abs=1e-6)
    each = [adjusted_cross_entropy(Z[i : i + 1], Y[i : i + 1], prior).item() for i in range(2)]
    assert each == pytest.approx([0.143055, 1.907501], abs=1e-5)
    assert adjusted_cross_entropy(Z, Y, prior).item() == pytest.approx(1.025278, abs=1e-5)


def test_equal_classes_and_no_prior_are_plain_cross_entropy() -> None:
    plain = cross_entropy(Z, Y).item()
    assert adjusted_cross_entropy(Z, Y, log_prior(torch.arange(3), 3)).item() == pytest.approx(plain)
    assert adjusted_cross_entropy(Z, Y, 0.0 * log_prior(torch.zeros(3, dtype=torch.int64), 3)).item() == plain


def test_a_class_that_the_client_lacks_leaves_everything_finite() -> None:
    labels = torch.tensor([0, 0, 2])
    assert shares(labels, 4).tolist() == pytest.approx([2 / 3, 0, 1 / 3, 0])
    prior = log_prior(labels, 4)
    assert prior[[1, 3]].tolist() == pytest.approx([-18.420681] * 2)
    logits = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    adjusted_cross_entropy(logits, labels, prior).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:, [1, 3]].abs().max() < 1e-8  # nothing pushes it down, or up


def test_one_image_in_a_million_is_more_than_none() -> None:
    labels = torch.zeros(1_000_000, dtype=torch.int64)
    labels[0] = 1
    prior = log_prior(labels, 3)
    assert prior[1] > prior[2] + 4
