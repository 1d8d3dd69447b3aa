"""Who is whose neighbour, and what several models say of images together, by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from learning.optimizer import LocalSGD
from methods.fedrn_on_server import LARGEST_LOGIT
from methods.neighbours import (
    above,
    best,
    clean_probabilities,
    cosines,
    min_max,
    scores_for,
    tune,
    weighted,
)
from tests.batches_of import visit_of

# Twenty small losses and ten large ones.
APART = torch.cat([torch.linspace(0.0, 0.2, 20), torch.linspace(2.8, 3.0, 10)])


# Who is whose neighbour.


def test_scores_by_hand() -> None:
    """With alpha = .6: e = [.6, .9, .75, .8] is [0, 1, .5, 2/3], and cosines [1, .2, .8, .5] are [1, 0, .75, .375]."""
    cosine = np.array([1, 0.2, 0.8, 0.5])
    probes = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)  # of length 1, and the first is (1, 0)
    scores = scores_for(0, np.array([0.6, 0.9, 0.75, 0.8]), probes, 0.6)
    assert scores.tolist() == pytest.approx([0.4, 0.6, 0.6, 0.55])
    assert best(scores, 0, 1) == [1]  # clients 1 and 2 are equal
    assert best(scores, 0, 2) == [1, 2]
    assert best(scores, 0, 9) == [1, 2, 3]
    assert best(scores, 1, 1) == [2]


def test_scores_of_another_client_by_hand() -> None:
    """Client 2 sees itself as most similar, although client 0's output is 100 times as long.

    o = (0, 3), (4, 3), (300, 400) / 4: cosines with the third, (.6, .8), are .8, .48 + .48 = .96 and 1. Scaled they are
    0, .8 and 1; e = (.5, .5, .3) are 1, 1, 0. With alpha = .25: .25, .25 + .75 * .8 = .85, and .75.
    """
    probes = np.array([[0, 3], [4, 3], [75, 100]], dtype=np.float64)
    assert cosines(probes, probes[2]).tolist() == pytest.approx([0.8, 0.96, 1])
    assert scores_for(2, np.array([0.5, 0.5, 0.3]), probes, 0.25).tolist() == pytest.approx([0.25, 0.85, 0.75])


def test_equal_expertises_and_outputs_count_fully_and_no_output_is_like_nobody() -> None:
    assert min_max(np.full(3, 0.7)).tolist() == [1, 1, 1]
    assert scores_for(1, np.full(3, 0.7), np.ones((3, 4)), 0.6).tolist() == pytest.approx([1, 1, 1])
    silent = np.array([[0.0, 0], [1, 1], [0, 0]])
    assert cosines(silent, silent[0]).tolist() == [0, 0, 0]
    assert scores_for(0, np.array([1.0, 1, 1]), silent, 0.0).tolist() == [1, 0, 0]
    assert scores_for(0, np.array([0.5]), np.zeros((1, 2)), 0.6).tolist() == [1]
    assert best(np.array([1.0]), 0, 1) == []


REPORTED = st.lists(
    st.tuples(st.floats(0, 1), st.lists(st.floats(-LARGEST_LOGIT, LARGEST_LOGIT), min_size=3, max_size=3)),
    min_size=1, max_size=6,
)  # fmt: skip


@given(REPORTED, st.floats(0, 1), st.integers(0, 5), st.integers(1, 4))
def test_whatever_clients_report_scores_are_shares_that_add_up_to_something(
    reported: list[tuple[float, list[float]]], alpha: float, own: int, count: int
) -> None:
    own %= len(reported)
    scores = scores_for(own, np.array([e for e, _ in reported]), np.array([o for _, o in reported]), alpha)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-12).all()
    found = best(scores, own, count)
    assert len(found) == len(set(found)) == min(count, len(reported) - 1)
    assert scores[[own, *found]].sum() > 0 or alpha == 1  # then nobody need judge: everybody is learned from


# What models say.


def test_what_own_and_neighbours_models_say_by_hand() -> None:
    """Weights .4 and .6 of the example: .4 * .9 + .6 * .2 = .48, .4 * .1 + .6 * .8 = .52, and .5 is not above .5."""
    own, other = np.array([0.9, 0.1, 0.5]), np.array([0.2, 0.8, 0.5])
    mean = weighted([0.4, 0.6], [own, other])
    assert mean is not None
    assert mean.tolist() == pytest.approx([0.48, 0.52, 0.5])
    assert above(mean, 0.49).tolist() == [False, True, True]
    assert above(mean, 0.5).tolist() == [True, True, True]  # a single one cannot be learned alone
    assert above(np.array([0.6, 0.7, 0.5]), 0.5).tolist() == [True, True, False]
    assert above(np.array([0.1]), 0.5).tolist() == [True]


def test_models_that_say_nothing_have_no_weight() -> None:
    one = np.array([0.25, 0.75])
    found = weighted([0.4, 0.6, 0.1], [one, None, one])
    assert found is not None
    assert found.tolist() == pytest.approx(one.tolist())
    assert weighted([0.4], [None]) is None
    assert weighted([0.0, 0.5], [one, None]) is None


def test_probabilities_of_small_losses() -> None:
    found = clean_probabilities(APART.double().numpy())
    assert found is not None
    assert (found[:20] > 0.99).all()
    assert (found[20:] < 0.01).all()
    for equal in (np.full(30, 0.7), np.zeros(12), np.arange(9.0)):  # or too few to fit two Gaussians
        said = clean_probabilities(equal)
        assert said is not None
        assert said.tolist() == [1] * len(equal)
    for broken in (np.nan, np.inf):
        assert clean_probabilities(np.array([0.1] * 20 + [broken])) is None


@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=40))
def test_probabilities_are_some_whatever_the_losses(losses: list[float]) -> None:
    found = clean_probabilities(np.array(losses))
    assert found is not None
    assert ((found >= 0) & (found <= 1)).all()


def test_a_classifier_is_tuned_by_the_runs_optimiser_in_one_epoch_by_hand() -> None:
    """Features (1, 0) and (0, 1) of classes 0 and 1, no bias, all weights 0: softmax is 1/2 everywhere.

    The gradient of the mean loss by weight (class c, feature f) is the mean over the images of (p_c - [c = y]) x_f:
    -1/4 where class and feature belong together, 1/4 elsewhere. At rate .4 the weights become .1 and -.1. Image 2 is
    not among the rows.
    """
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()

    def optimizer(module: nn.Module) -> LocalSGD:
        made = LocalSGD(module)
        made.begin(0.4, 0.0, 0.0)
        return made

    features, labels = torch.tensor([[1.0, 0], [0, 1], [9, 9]]), torch.tensor([0, 1, 0])
    tune(layer, features, labels, torch.tensor([0, 1]), visit_of(labels, 2, optimizer=optimizer))
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.1, -0.1], [-0.1, 0.1]]))
    assert not layer.weight.requires_grad
