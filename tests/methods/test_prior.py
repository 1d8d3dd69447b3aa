"""How far predictions are from a prior of the classes, and the two priors."""

import pytest
import torch

from methods.dividemix import DivideMix
from methods.prior import distance_from_prior
from tests.batches_of import Z, visit_of


def test_the_distance_from_the_prior() -> None:
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert distance_from_prior(Z.log_softmax(dim=1), uniform).item() == pytest.approx(0.131060, abs=1e-5)
    assert distance_from_prior(Z.log_softmax(dim=1), Z.softmax(dim=1).mean(dim=0)).item() == pytest.approx(0)
    certain = (1000 * torch.eye(3)[[0, 0]]).requires_grad_()
    distance = distance_from_prior(certain.log_softmax(dim=1), torch.tensor([0.5, 0.5, 0.0]))
    distance.backward()
    assert distance.item() == pytest.approx(500, rel=0.01)
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


def test_the_prior_of_the_clients_own_labels() -> None:
    visit = visit_of(torch.tensor([0, 0, 0, 2]))
    DivideMix(prior="given").begin(visit)
    assert visit.scratch["prior"].tolist() == [0.75, 0, 0.25]
    DivideMix().begin(visit)
    assert visit.scratch["prior"].tolist() == pytest.approx([1 / 3] * 3)
