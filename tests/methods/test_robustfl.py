"""RobustFL on a client: its loss by hand with gradients, its schedules, and how centroids follow."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from learning.method import Visit
from methods.centroids import CENTROIDS, KNOWN
from methods.robustfl import RobustFL, centre_loss, cut_to, followed, nearest
from task import Compute
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
FEATURES = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
# Cosines with the first image 2/sqrt(5), 0, 1/sqrt(10), so that its label 0 fits; with the second 1/sqrt(5), 1,
# 3/sqrt(10), so that its label 2 does not.
CENTRES = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
ALL = torch.ones(3, dtype=torch.bool)
NOBODY_LEFT_OUT = {"forget_rate": 0.0, "pseudo_start": 1 / 12}  # T_pl is 10, as FNBench's


class Answers:
    """Stands in for `Inference`: its answers are given; counts how often each is asked for."""

    def __init__(self, features: Tensor, logits: Tensor) -> None:
        self.features, self.logits = features, logits
        self.asked = Counter[str]()

    def features_of_all(self, network: Any) -> Tensor:
        self.asked["features"] += 1
        return self.features

    def on_all(self, network: Any) -> Tensor:
        self.asked["logits"] += 1
        return self.logits


def _received(centroids: Tensor, known: Tensor) -> dict[str, Tensor]:
    return {CENTROIDS: centroids, KNOWN: known.float()}


def _begun(method: RobustFL, labels: Tensor = Y, server_round: int = 40, **values: Any) -> Visit:
    """A visit in a run of 120 rounds to a client that was sent `CENTRES`; the global model predicts class 1."""
    answers = Answers(FEATURES, torch.tensor([[0.0, 1.0, 0.0]] * len(labels)))
    values = {"inference": answers, "networks": [None], "received": _received(CENTRES, ALL), **values}
    visit = visit_of(labels, server_round=server_round, num_rounds=120, **values)
    method.begin(visit)
    return visit


# The loss. CE of `Z` is .241311 for label 0 of the first image; for the second 1.453564 of its label 2, and
# -log .574897 = .553565 of class 1. H is .798007 on average. The squared distance of the first image is 1 + 1.


@pytest.mark.parametrize(
    ("server_round", "distance", "expected"),
    [
        (11, "mean", (0.241311 + 0.553565) / 2 + 0.8 * 0.798007 + 2 / 2),
        (11, "sum", (0.241311 + 0.553565) / 2 + 0.8 * 0.798007 + 2),
        (10, "mean", (0.241311 + 1.453564) / 2 + 0.8 * 0.798007 + 2 / 2),  # T_pl: the last with given labels
        (5, "mean", (0.241311 + 1.453564) / 2 + 0.8 * 0.798007 + 0.5 * 2 / 2),  # and lambda is half
    ],
)
def test_the_whole_loss_by_hand(server_round: int, distance: str, expected: float) -> None:
    method = RobustFL(distance=distance, **NOBODY_LEFT_OUT)  # type: ignore[arg-type]
    visit = _begun(method, server_round=server_round)
    assert method.loss(batch_of(Y, Z, features=FEATURES), visit).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("distance", "pull"), [("mean", -1.0), ("sum", -2.0)])
def test_its_gradients_by_hand(distance: str, pull: float) -> None:
    """2 (F - c) / d for the image that fits, none for the other; in published code there is none at all."""
    method = RobustFL(distance=distance, **NOBODY_LEFT_OUT)  # type: ignore[arg-type]
    logits, features = Z.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    method.loss(batch_of(Y, logits, features=features), _begun(method)).backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.tensor([[pull, pull], [0.0, 0.0]], dtype=torch.float64))
    p = Z.softmax(dim=1)
    entropies = -(p * p.log()).sum(dim=1, keepdim=True)
    of_ce = p - torch.nn.functional.one_hot(torch.tensor([0, 1]), 3)
    expected = (of_ce - 0.8 * p * (p.log() + entropies)) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_its_gradients_agree_with_finite_differences() -> None:
    method = RobustFL(**NOBODY_LEFT_OUT)  # type: ignore[arg-type]
    visit = _begun(method)
    inputs = (Z.clone().requires_grad_(), FEATURES.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda z, f: method.loss(batch_of(Y, z, features=f), visit), inputs)


def test_the_distance_is_a_mean_over_the_images_that_fit() -> None:
    """Squared distances 4, 25 and 9; the second counts for nothing. In published code they are added up."""
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 3.0]], requires_grad=True)
    loss = centre_loss(features, torch.zeros(3, 2), torch.tensor([True, False, True]))
    loss.backward()
    assert loss.item() == 6.5
    assert features.grad is not None
    assert features.grad.tolist() == [[2, 0], [0, 0], [0, 3]]
    nobody = centre_loss(features, torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool))
    assert nobody.item() == 0


# CE log(1 + exp(x)) of logits [0, x] and label 0.
LOSSES = [0.2, 1.5, 0.4, 0.9, 2.0]
HARD = torch.tensor([[0.0, math.log(math.expm1(loss))] for loss in LOSSES], dtype=torch.float64)


def test_the_largest_losses_are_left_out_by_hand() -> None:
    """Of five images four are kept with tau = 0.2, of which the loss is 3 / 4."""
    method, labels = RobustFL(centre=0, entropy=0), torch.zeros(5, dtype=torch.int64)
    one = torch.ones(1, 2, dtype=torch.float64)
    features = one.expand(5, 2)
    visit = _begun(method, labels, received=_received(one.expand(2, 2), torch.tensor([True, False])), num_classes=2)
    logits = HARD.clone().requires_grad_()
    loss = method.loss(batch_of(labels, logits, features=features), visit)
    loss.backward()
    assert loss.item() == pytest.approx(0.75)
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == [True, True, True, True, False]
    method.end_step(visit)
    method.end(visit)
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False, False, False, False, True]
    assert visit.suspicion is not None
    assert visit.suspicion.tolist() == pytest.approx(LOSSES)


def test_images_that_take_another_label_are_suspected() -> None:
    """Once predictions count; one whose prediction is its given label is not."""
    method = RobustFL(**NOBODY_LEFT_OUT)  # type: ignore[arg-type]
    for labels, server_round, expected in (
        (Y, 11, [False, True]),
        (Y, 10, [False, False]),
        (torch.tensor([2, 1]), 11, [True, False]),  # the first is predicted as 1, the second fits
        (torch.tensor([1, 2]), 11, [False, True]),  # neither fits, the first is predicted as it is labelled
    ):
        visit = _begun(method, labels, server_round)
        method.loss(batch_of(labels, Z, features=FEATURES), visit)
        method.end(visit)
        assert visit.suspected is not None
        assert visit.suspected.tolist() == expected


# Schedules.


def test_tau_rises_as_in_co_teaching() -> None:
    method = RobustFL()
    for server_round, tau in ((1, 0), (2, 0.008696), (13, 0.104348), (24, 0.2), (25, 0.2), (120, 0.2)):
        assert method.forget_rate_at(server_round, 120) == pytest.approx(tau, abs=1e-6)
    short = RobustFL(forget_rate=0.38, warm_up_rounds=3)
    assert [short.forget_rate_at(t, 40) for t in (1, 2, 3, 4)] == pytest.approx([0, 0.19, 0.38, 0.38])


@pytest.mark.parametrize(
    ("args", "rounds", "length", "weights"),
    [
        ({"pseudo_start": 1 / 12}, 120, 10, {1: 0.1, 5: 0.5, 10: 1, 11: 1, 120: 1}),  # FNBench's
        ({}, 120, 24, {1: 1 / 24, 24: 1, 25: 1}),  # when tau is whole
        ({}, 40, 8, {1: 1 / 8, 2: 1 / 4, 8: 1, 9: 1}),
        ({"centre": 0.5, "pseudo_start_rounds": 4}, 40, 4, {1: 0.125, 4: 0.5, 5: 0.5}),
        ({"pseudo_start_rounds": 0}, 40, 0, {1: 1, 2: 1}),
        ({}, 3, 1, {1: 1, 3: 1}),  # never in the first round, unless it is said
        ({"pseudo_start": 0.0}, 40, 1, {1: 1}),
        ({"pseudo_start": 1.0}, 3, 3, {1: 1 / 3, 3: 1}),
    ],
)
def test_lambda_rises_until_predictions_count(
    args: dict[str, Any], rounds: int, length: int, weights: dict[int, float]
) -> None:
    method = RobustFL(**args)
    assert method.pseudo_start_of(rounds) == length
    assert {t: method.centre_at(t, rounds) for t in weights} == pytest.approx(weights)


@pytest.mark.parametrize(("server_round", "expected"), [(10, [0, 2]), (11, [1, 1])])
def test_predictions_count_after_that_round_and_are_made_anew_in_each_visit(
    server_round: int, expected: list[int]
) -> None:
    visit = _begun(RobustFL(pseudo_start_rounds=10), server_round=server_round)
    assert visit.scratch["predicted"].tolist() == expected
    assert visit.state == {}


# Centroids.


def _followed(before: list[float], mean: list[float], seen: bool = True) -> list[float]:
    new = followed(torch.tensor([before]).double(), torch.tensor([mean]).double(), torch.tensor([seen]))
    found: list[float] = new[0].tolist()
    return found


def test_centroids_follow_by_hand() -> None:
    before = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    means = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    new = followed(before, means, torch.tensor([True, False]))
    torch.testing.assert_close(new, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))  # s = [.707107, 0]
    assert _followed([3, 4], [4, 3]) == pytest.approx([3.9216, 3.0784])  # s = 24/25, its square .9216
    assert _followed([1, 0], [0.2, 1.0]) == pytest.approx([0.969231, 0.038462], abs=1e-6)  # s^2 = .04/1.04


def test_a_centroid_that_points_elsewhere_becomes_the_mean() -> None:
    """Otherwise it would stay for good; where s may be negative, as in published code, it would go half the way."""
    assert _followed([1, 0], [-1, 1]) == pytest.approx([-1, 1])  # s = -.707107
    assert _followed([1, 0], [0.05, 1.0]) == pytest.approx([0.05, 1.0])  # s = .049938
    assert _followed([0, 0], [3, 4]) == pytest.approx([3, 4])
    assert _followed([1, 0], [-1, 1], seen=False) == [1, 0]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1e-20, 1.0, 1e6]), st.sampled_from([0.0, 1e-20, 1.0, 1e6]))
def test_centroids_stay_between_what_they_were_and_the_mean(seed: int, one: float, other: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    before, means = one * torch.randn(4, 7, generator=draw), other * torch.randn(4, 7, generator=draw)
    new = followed(before, means, torch.rand(4, generator=draw) < 0.7)
    slack = 1e-5 * max(one, other)
    assert new.isfinite().all()
    assert (new >= torch.minimum(before, means) - slack).all()
    assert (new <= torch.maximum(before, means) + slack).all()


def test_nearest_is_by_direction_among_known_classes() -> None:
    assert nearest(FEATURES, CENTRES, ALL).tolist() == [0, 1]
    assert nearest(FEATURES, 1000 * CENTRES, ALL).tolist() == [0, 1]
    assert nearest(FEATURES, CENTRES, torch.tensor([False, False, True])).tolist() == [2, 2]
    assert nearest(FEATURES, CENTRES, torch.tensor([True, False, True])).tolist() == [0, 2]


def test_a_step_moves_classes_of_which_it_saw_two_images() -> None:
    """By the mean of its features, of given labels; that of one image would be its features."""
    method = RobustFL(**NOBODY_LEFT_OUT)  # type: ignore[arg-type]
    labels = torch.tensor([0, 0, 2])
    visit = _begun(method, labels)
    features = torch.tensor([[4.0, 0.0], [2.0, 2.0], [9.0, 9.0]], dtype=torch.float64)
    method.loss(batch_of(labels, torch.zeros(3, 3).double(), features=features), visit)
    assert torch.equal(visit.scratch[CENTROIDS], CENTRES)  # not before the step is made
    method.end_step(visit)
    # The mean (3, 1): s = 7 / sqrt(50), its square .98.
    expected = torch.tensor([[0.02 * 2 + 0.98 * 3, 1.0], [0.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(visit.scratch[CENTROIDS], expected)


def test_without_centroids_from_the_server_a_class_begins_with_the_first_steps_mean() -> None:
    """Nothing fits before, not even the first class; a class of one image stays unknown."""
    method, labels = RobustFL(pseudo_start_rounds=0, **NOBODY_LEFT_OUT), torch.tensor([0, 0, 2])  # type: ignore[arg-type]
    features = torch.tensor([[4.0, 0.0], [2.0, 2.0], [9.0, 9.0]], dtype=torch.float64)
    visit = _begun(method, labels, 1, received={})
    batch = batch_of(labels, torch.zeros(3, 3).double(), features=features)
    # All are taken as class 1, which is predicted; the entropy of three equal classes is log 3 as well.
    assert method.loss(batch, visit).item() == pytest.approx(1.8 * math.log(3))
    method.end_step(visit)
    assert visit.scratch[CENTROIDS].tolist() == [[3, 1], [0, 0], [0, 0]]
    assert visit.scratch[KNOWN].tolist() == [True, False, False]
    # In the second step the first class fits: squared distances 2 and 2, over two features.
    assert method.loss(batch, visit).item() == pytest.approx(1.8 * math.log(3) + 1)
    method.end_step(visit)
    method.end(visit)
    assert visit.sends[KNOWN].tolist() == [1, 0, 0]
    torch.testing.assert_close(visit.sends[CENTROIDS], torch.tensor([[3.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).double())


def test_a_step_reads_no_tensor() -> None:
    method, device = RobustFL(), torch.device("meta")
    labels = torch.zeros(9, dtype=torch.int64, device=device)
    answers = Answers(torch.zeros(9, 2, device=device), torch.zeros(9, 3, device=device))
    visit = visit_of(labels, server_round=9, num_rounds=9, networks=[None], inference=answers)
    method.begin(visit)
    rows = torch.zeros(4, dtype=torch.int64, device=device)
    logits, features = (torch.zeros(4, n, device=device, requires_grad=True) for n in (3, 2))
    method.loss(batch_of(labels[rows], logits, rows=rows, features=features), visit).backward()
    method.end_step(visit)
    method.end(visit)
    assert logits.grad is not None
    assert features.grad is not None


def test_with_all_of_it_switched_off_it_is_cross_entropy() -> None:
    method = RobustFL(forget_rate=0, centre=0, entropy=0)
    loss = method.loss(batch_of(Y, Z, features=FEATURES), _begun(method, server_round=1))
    assert loss.item() == pytest.approx(cross_entropy(Z, Y).item())


def test_centroids_are_cut_down_to_twice_the_longest_feature_by_hand() -> None:
    """The features' lengths are 5 and 1, so that 10 is the limit."""
    features = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    centroids = torch.tensor([[0.0, 8.0], [30.0, 40.0], [0.0, 0.0], [-1e6, 0.0]])
    expected = torch.tensor([[0.0, 8.0], [6.0, 8.0], [0.0, 0.0], [-10.0, 0.0]])
    torch.testing.assert_close(cut_to(features, centroids), expected)
    assert torch.equal(cut_to(features, centroids)[0], centroids[0])  # to the bit
    assert cut_to(torch.zeros(2, 2), centroids).abs().max() == 0
