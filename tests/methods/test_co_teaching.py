"""Co-teaching: worked numbers, where each network's gradient comes from, its schedule, and what it suspects."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods.co_teaching import CoTeaching, kept
from task import Compute, Networks, build_model, derived_generator
from tests.batches_of import batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
NOUGHTS = torch.zeros(5, dtype=torch.int64)
ONE, OTHER = [0.2, 1.5, 0.4, 0.9, 2.0], [1.0, 0.3, 0.5, 2.5, 0.6]


def _logits(losses: list[float]) -> Tensor:
    """Of two classes, with these cross-entropies for label 0."""
    right = torch.tensor(losses, dtype=torch.float64).neg().exp()
    return torch.stack([right.log(), (1 - right).log()], dim=1)


def _begun(method: CoTeaching, labels: Tensor = NOUGHTS, server_round: int = 40) -> Visit:
    visit = visit_of(labels, 2, server_round=server_round, num_rounds=40)
    method.begin(visit)
    return visit


def test_losses_by_hand() -> None:
    """I_1 = {0, 2, 3, 1}, I_2 = {1, 2, 4, 0}: loss_1 = (1.5 + .4 + 2 + .2) / 4, loss_2 = (1 + .5 + 2.5 + .3) / 4."""
    method = CoTeaching()
    loss = method.loss(batch_of(NOUGHTS, _logits(ONE), _logits(OTHER)), _begun(method))
    assert loss.item() == pytest.approx(1.025 + 1.075)


def test_each_network_learns_from_what_the_other_kept() -> None:
    method = CoTeaching()
    one, other = (_logits(losses).requires_grad_() for losses in (ONE, OTHER))
    method.loss(batch_of(NOUGHTS, one, other), _begun(method)).backward()
    for logits, rows in ((one, [1, 2, 4, 0]), (other, [0, 2, 3, 1])):
        alone = logits.detach().clone().requires_grad_()
        cross_entropy(alone[rows], NOUGHTS[rows]).backward()
        torch.testing.assert_close(logits.grad, alone.grad)


def test_before_anything_is_left_out_both_learn_from_all() -> None:
    method = CoTeaching()
    visit = _begun(method, server_round=1)
    loss = method.loss(batch_of(NOUGHTS, _logits(ONE), _logits(OTHER)), visit)
    assert loss.item() == pytest.approx(sum(ONE) / 5 + sum(OTHER) / 5)
    method.end_epoch(visit)
    assert visit.suspected is not None
    assert not visit.suspected.any()


def test_equal_losses_are_kept_in_the_order_of_the_batch() -> None:
    method = CoTeaching(forget_rate=0.4)
    visit = _begun(method)
    method.loss(batch_of(NOUGHTS, _logits([0.7] * 5), _logits(OTHER)), visit)
    method.end_epoch(visit)
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False, False, False, True, True]


def test_an_image_is_as_suspect_as_network_1_s_loss_when_it_was_last_seen() -> None:
    """Image 0 is never seen, 1 and 2 once; of what left-out images have, no number is the most suspect."""
    method = CoTeaching()
    visit = _begun(method, torch.zeros(7, dtype=torch.int64))
    assert visit.suspicion is None
    method.loss(batch_of(NOUGHTS, _logits(ONE), _logits(OTHER), rows=torch.tensor([6, 5, 4, 3, 2])), visit)
    method.end_epoch(visit)
    assert visit.suspicion is not None
    assert (visit.suspicion.dtype, visit.suspicion.requires_grad) == (torch.float32, False)
    assert visit.suspicion.tolist() == pytest.approx([0, 0, 2.0, 0.9, 0.4, 1.5, 0.2])
    method.loss(batch_of(NOUGHTS, _logits(ONE[::-1]), _logits(OTHER), rows=torch.tensor([6, 5, 4, 3, 1])), visit)
    method.end_epoch(visit)
    assert visit.suspicion.tolist() == pytest.approx([0, 0.2, 2.0, 1.5, 0.4, 0.9, 2.0])
    broken = _logits([*ONE[:4], math.nan])
    method.loss(batch_of(NOUGHTS, broken, _logits(OTHER)), visit)
    method.end_epoch(visit)
    assert visit.suspicion.isfinite().all()
    assert visit.suspicion.argmax() == 4


def test_what_network_1_left_out_of_the_last_epoch_is_suspected() -> None:
    method = CoTeaching()
    visit = _begun(method, torch.zeros(7, dtype=torch.int64))
    rows = torch.tensor([6, 5, 4, 3, 2])
    method.loss(batch_of(NOUGHTS, _logits(ONE), _logits(OTHER), rows=rows), visit)
    method.end_epoch(visit)
    assert visit.suspected is not None
    assert visit.suspected.nonzero().flatten().tolist() == [2]
    # Network 1 finds image 6 hard now; image 2 is not seen again, so it is no longer suspected.
    method.loss(batch_of(NOUGHTS, _logits(ONE[::-1]), _logits(OTHER), rows=torch.tensor([6, 5, 4, 3, 1])), visit)
    method.end_epoch(visit)
    assert visit.suspected.nonzero().flatten().tolist() == [6]
    assert visit.suspected.dtype is torch.bool
    method.end(visit)
    assert visit.suspected.nonzero().flatten().tolist() == [6]


def test_the_forget_rate_rises_as_worked_out() -> None:
    """T_w = 24 of 120 rounds."""
    method = CoTeaching()
    rates = [method.forget_rate_at(1 + t, 120) for t in (0, 1, 12, 23, 24, 119)]
    assert rates == pytest.approx([0, 0.008696, 0.104348, 0.2, 0.2, 0.2], abs=1e-6)


@given(st.integers(0, 40), st.integers(1, 40))
def test_the_forget_rate_is_numpys_linspace_and_then_stays(warm_up: int, server_round: int) -> None:
    method = CoTeaching(forget_rate=0.38, warm_up_rounds=warm_up)
    schedule = [*np.linspace(0, 0.38, warm_up), *[0.38] * 40]
    assert method.forget_rate_at(server_round, 40) == pytest.approx(schedule[server_round - 1])


def test_a_warm_up_of_one_round_or_none() -> None:
    assert [CoTeaching(warm_up_rounds=1).forget_rate_at(t, 9) for t in (1, 2)] == [0, 0.2]
    assert CoTeaching(warm_up_rounds=0).forget_rate_at(1, 9) == 0.2
    assert CoTeaching(warm_up=0).forget_rate_at(1, 9) == 0.2


@given(st.integers(0, 999), st.integers(1, 1024))
@example(340, 50)  # (1 - 0.34) * 50 is 32.99999999999999
def test_how_many_are_kept_is_exact(thousandths: int, count: int) -> None:
    exact = int((1 - Fraction(thousandths, 1000)) * count)
    assert kept(thousandths / 1000, count) == max(1, exact)


def test_at_least_one_image_of_a_batch_is_kept() -> None:
    assert kept(0.99, 5) == kept(0.2, 1) == 1
    method, label = CoTeaching(forget_rate=0.9), torch.zeros(1, dtype=torch.int64)
    loss = method.loss(batch_of(label, _logits([0.3]), _logits([0.5])), _begun(method, label))
    assert loss.item() == pytest.approx(0.8)


def _visit(**changes: Any) -> Any:
    settings = {"model": "cnn", "image_size": 16, "batch_size": 4, "local_epochs": 2, "learning_rate": 0.05}
    config = RunConfig(**{**settings, **changes})
    images = torch.randint(256, (10, 16, 16, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    model = build_model("cnn", 5, seed=3, networks=2)
    method = CoTeaching(forget_rate=0.5, warm_up_rounds=0)
    report = train_locally(model, images, torch.arange(10) % 4, method, config, CPU, derived_generator(1, "t"))
    return report, model


@pytest.mark.parametrize(("batch_size", "drop_last", "suspected"), [(4, False, 5), (4, True, 4), (64, False, 5)])
def test_a_visit_trains_both_networks_and_suspects_its_last_epochs_share(
    batch_size: int, drop_last: bool, suspected: int
) -> None:
    report, model = _visit(batch_size=batch_size, drop_last=drop_last)
    untrained = build_model("cnn", 5, seed=3, networks=2)
    for network in ("networks.0.fc.weight", "networks.1.fc.weight"):
        assert not torch.equal(model.state_dict()[network], untrained.state_dict()[network])
    assert report.visit.suspected.shape == (10,)
    assert report.visit.suspected.sum() == suspected
    assert report.epoch_losses == _visit(batch_size=batch_size, drop_last=drop_last)[0].epoch_losses


def test_batches_of_one_are_learned_by_both() -> None:
    report, _ = _visit(batch_size=1)
    assert report.images_seen == 20
    assert not report.visit.suspected.any()


def test_networks_that_start_alike_see_their_own_views_and_diverge() -> None:
    images = torch.randint(256, (8, 16, 16, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    for augmentation, part in (("none", False), ("flip", True)):
        twins = Networks([build_model("cnn", 5, seed=3) for _ in range(2)])
        config = RunConfig(model="cnn", image_size=16, batch_size=8, augmentation=augmentation)
        train_locally(twins, images, torch.arange(8) % 5, CoTeaching(), config, CPU, derived_generator(1, "t"))
        first, second = (twins.get_parameter(f"networks.{number}.fc.weight") for number in (0, 1))
        assert torch.equal(first, second) is not part


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"forget_rate": 1}, "forget-rate must be a number at least 0 and below 1"),
        ({"forget_rate": float("nan")}, "forget-rate must be a number at least 0 and below 1"),
        ({"warm_up": -0.1}, "warm-up must be a number at least 0 and at most 1"),
        ({"warm_up_rounds": -2}, "warm-up-rounds must be a whole number"),
        ({"warm_up_rounds": 0.5}, "warm-up-rounds must be a whole number"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CoTeaching(**values)
