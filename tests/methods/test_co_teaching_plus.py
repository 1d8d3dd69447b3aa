"""Co-teaching+: worked numbers, the paper's rule written plainly, the empty set, and what is as in co-teaching."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods.co_teaching import CoTeaching, kept
from methods.co_teaching_plus import CoTeachingPlus, kept_of
from task import Compute, build_model, derived_generator
from tests.batches_of import batch_of, visit_of

NOUGHTS = torch.zeros(5, dtype=torch.int64)
ONE, OTHER = [0.2, 1.5, 0.4, 0.9, 2.0], [1.0, 0.3, 0.5, 2.5, 0.6]


def _logits(losses: list[float]) -> Tensor:
    """Of two classes, with these cross-entropies for label 0, which is predicted where they are below log 2."""
    right = torch.tensor(losses, dtype=torch.float64).neg().exp()
    return torch.stack([right.log(), (1 - right).log()], dim=1)


def _begun(method: CoTeaching, labels: Tensor = NOUGHTS, server_round: int = 40, classes: int = 2) -> Visit:
    visit = visit_of(labels, classes, server_round=server_round, num_rounds=40)
    method.begin(visit)
    return visit


def test_losses_by_hand() -> None:
    """They disagree on {0, 1, 4} and keep 2: I_1 = {0, 1}, I_2 = {1, 4}; (1.5 + 2) / 2 and (1 + .3) / 2."""
    method = CoTeachingPlus()
    loss = method.loss(batch_of(NOUGHTS, _logits(ONE), _logits(OTHER)), _begun(method))
    assert loss.item() == pytest.approx(1.75 + 0.65)


def test_each_network_learns_from_what_the_other_kept() -> None:
    method = CoTeachingPlus()
    one, other = (_logits(losses).requires_grad_() for losses in (ONE, OTHER))
    method.loss(batch_of(NOUGHTS, one, other), _begun(method)).backward()
    for logits, rows in ((one, [1, 4]), (other, [0, 1])):
        alone = logits.detach().clone().requires_grad_()
        cross_entropy(alone[rows], NOUGHTS[rows]).backward()
        torch.testing.assert_close(logits.grad, alone.grad)


def _plainly(one: Tensor, other: Tensor, labels: Tensor, rate: float) -> Tensor:
    """The paper's rule with lists of rows, as a CPU may."""
    losses = [cross_entropy(logits, labels, reduction="none") for logits in (one, other)]
    rows = [row for row in range(len(labels)) if one[row].argmax() != other[row].argmax()]
    if not rows:
        return losses[0].mean() + losses[1].mean()
    easy = [sorted(rows, key=lambda row: float(each[row]))[: kept(rate, len(rows))] for each in losses]
    return losses[0][easy[1]].mean() + losses[1][easy[0]].mean()


@given(st.integers(1, 12), st.integers(2, 5), st.floats(0, 0.99), st.integers(0, 9999))
def test_masks_do_what_lists_of_rows_would(images: int, classes: int, rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    one, other = torch.randn(2, images, classes, generator=generator, dtype=torch.float64)
    method = CoTeachingPlus(forget_rate=rate)
    loss = method.loss(batch_of(labels, one, other), _begun(method, labels, classes=classes))
    assert loss.item() == pytest.approx(_plainly(one, other, labels, rate).item())


@pytest.mark.parametrize("images", [1, 2, 5])
def test_networks_that_agree_on_all_learn_from_all(images: int) -> None:
    """Whatever the forget rate."""
    method, labels = CoTeachingPlus(forget_rate=0.9), NOUGHTS[:images]
    loss = method.loss(batch_of(labels, _logits(ONE[:images]), _logits(ONE[:images])), _begun(method, labels))
    assert loss.item() == pytest.approx(2 * sum(ONE[:images]) / images)


def test_the_only_image_of_which_they_disagree_is_learned_even_if_it_comes_first() -> None:
    method = CoTeachingPlus(forget_rate=0.9)
    loss = method.loss(batch_of(NOUGHTS[:2], _logits([0.2, 0.3]), _logits([1.0, 0.4])), _begun(method, NOUGHTS[:2]))
    assert loss.item() == pytest.approx(0.2 + 1.0)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.34, 0.38, 0.7, 0.9, 0.99])
def test_as_many_are_kept_as_co_teaching_keeps(rate: float) -> None:
    counts = torch.arange(1, 1025)
    assert kept_of(rate, counts).tolist() == [kept(rate, count) for count in counts.tolist()]


@pytest.mark.parametrize(
    ("values", "rounds", "start"),
    [({}, 40, 4), ({}, 200, 20), ({"start": 1 / 12}, 120, 10), ({"start_rounds": 7}, 40, 7), ({"start": 0}, 40, 0),
     ({"start": 1}, 3, 3)],
)  # fmt: skip
def test_until_it_starts_it_is_co_teaching(values: dict[str, Any], rounds: int, start: int) -> None:
    method, plain = CoTeachingPlus(**values), CoTeaching()
    batch = batch_of(NOUGHTS, _logits(ONE), _logits(OTHER))
    for server_round in range(1, rounds + 1):
        visit = visit_of(NOUGHTS, 2, server_round=server_round, num_rounds=rounds)
        method.begin(visit)
        same = math.isclose(method.loss(batch, visit).item(), plain.loss(batch, visit).item())
        assert same is (server_round <= start)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_images_are_suspected_as_in_co_teaching(start: float) -> None:
    """Image 4 has network 1's largest loss; that the networks agree on images 2 and 3 does not matter."""
    method = CoTeachingPlus(start=start)
    visit = _begun(method)
    method.loss(batch_of(NOUGHTS, _logits(ONE), _logits(OTHER)), visit)
    method.end_epoch(visit)
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False, False, False, False, True]
    assert visit.suspicion is not None
    assert visit.suspicion.tolist() == pytest.approx(ONE)


def test_a_visit_trains_both_networks() -> None:
    config = RunConfig(model="cnn", image_size=16, batch_size=4, local_epochs=2, learning_rate=0.05)
    images = torch.randint(256, (10, 16, 16, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    model, untrained = (build_model("cnn", 5, seed=3, networks=2) for _ in range(2))
    method = CoTeachingPlus(start=0, warm_up_rounds=0)
    compute = Compute(torch.device("cpu"), torch.float32)
    train_locally(model, images, torch.arange(10) % 4, method, config, compute, derived_generator(1, "t"))
    for network in ("networks.0.fc.weight", "networks.1.fc.weight"):
        assert not torch.equal(model.state_dict()[network], untrained.state_dict()[network])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"start": 1.5}, "start must be a number at least 0 and at most 1"),
        ({"start_rounds": -2}, "start-rounds must be a whole number from 0"),
        ({"forget_rate": 1}, "forget-rate must be a number at least 0 and below 1"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CoTeachingPlus(**values)
