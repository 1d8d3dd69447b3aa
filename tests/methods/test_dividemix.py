"""DivideMix: worked numbers, who divides for whom, what goes through which network, and where little can be divided."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learning.method import Batch, Seen, Visit
from learning.mixup import Mix
from methods import dividemix
from methods.dividemix import DivideMix, again_and_again, clean, sharpened
from task import Compute
from tests.batches_of import ZB, Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
P, PB = Z.softmax(dim=1), ZB.softmax(dim=1)
REFINED = [[0.998431, 0.001532, 0.0000372], [0.045489, 0.129991, 0.824520]]
GUESSED = [[0.690862, 0.301806, 0.007333], [0.165483, 0.472889, 0.361629]]
AS_IT_IS = Mix(torch.tensor(1.0), torch.tensor([7, 6, 5, 4, 3, 2, 1, 0]))


def _close(value: Tensor, expected: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(value.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=atol)


class Answers:
    """Two networks by number, whose answers to any images are given; what they were asked is kept."""

    def __init__(self, *logits: Tensor) -> None:
        self.logits, self.asked = logits, list[tuple[int, Tensor, bool]]()

    def answer(self, network: int, inputs: Tensor, *, training: bool) -> Tensor:
        self.asked.append((network, inputs, training))
        return self.logits[network]

    def on_all(self, network: int) -> Tensor:
        return self.logits[network]


def _late(labels: Tensor, answers: Any, w: list[list[float]], classes: int = 3) -> Visit:
    """After warm-up, with the images already divided."""
    networks: Any = [0, 1]
    visit = visit_of(labels, classes, server_round=120, num_rounds=120, networks=networks, inference=answers)
    DivideMix().begin(visit)
    visit.scratch["clean"] = torch.tensor(w)
    return visit


def _seen(views: int = 2, network: int = 0) -> Seen:
    """Two labelled and two unlabelled images, told apart by their pixels: ten times the view and the row."""
    inputs = [torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2) + 10 * view for view in range(views)]
    return Seen(torch.arange(4), torch.tensor([0, 2, 1, 1]), (2, 2), network, inputs)


def _answers() -> Answers:
    """Of the trained network z to the first view of all four images and zb to the second; of the other likewise."""
    return Answers(torch.cat([Z, Z, ZB, ZB]), torch.cat([Z, ZB]))


def test_sharpening_by_hand() -> None:
    _close((P + PB) / 2, [[0.566902, 0.374694, 0.058404], [0.239881, 0.405508, 0.354610]])
    _close(sharpened((P + PB) / 2, 0.5), GUESSED)
    torch.testing.assert_close(sharpened(P, 1.0), P)
    assert sharpened(torch.tensor([[1.0, 0.0, 0.0]]), 0.5).tolist() == [[1, 0, 0]]


def test_labels_are_refined_and_guessed_by_hand() -> None:
    answers = _answers()
    visit = _late(torch.tensor([0, 2, 1, 1]), answers, [[0.9, 0.4, 0.1, 0.2], [0.0] * 4])
    believed = DivideMix().believed(_seen(), visit)
    _close(believed[:2], REFINED)
    _close(believed[2:], GUESSED)
    plain = DivideMix(temperature=1.0).believed(_seen(), visit)
    _close(plain[:2], [[0.956690, 0.037469, 0.005840], [0.143929, 0.243305, 0.612766]])
    (own, all_views, training), (other, unlabelled_views, frozen) = answers.asked[:2]
    assert (own, training, other, frozen) == (0, True, 1, False)
    assert all_views[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert unlabelled_views[:, 0, 0, 0].tolist() == [2, 3, 12, 13]


def test_nothing_is_guessed_where_all_is_labelled() -> None:
    answers = Answers(torch.cat([Z, ZB]))
    visit = _late(Y, answers, [[0.9, 0.4], [0.0, 0.0]])
    seen = Seen(torch.arange(2), Y, (2, 0), 0, [torch.zeros(2, 3, 1, 1)] * 2)
    _close(DivideMix().believed(seen, visit), REFINED)
    assert len(answers.asked) == 1
    assert len(DivideMix().mix(seen, visit)[0]) == 4


def test_only_the_labelled_are_trained_on_and_partners_may_be_any(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(count: int, alpha: float, *_: Any, mostly_own: bool) -> Mix:
        assert (count, alpha, mostly_own) == (8, 0.5, True)
        return Mix(torch.tensor(0.75), AS_IT_IS.partners)

    monkeypatch.setattr(dividemix, "draw_mix", drawn)
    visit = _late(torch.tensor([0, 2, 1, 1]), _answers(), [[0.9, 0.4, 0.1, 0.2], [0.0] * 4])
    order = torch.tensor([0.0, 1, 10, 11, 2, 3, 12, 13])  # x_1, x_2, u_1, u_2
    mixed = 0.75 * order + 0.25 * order.flip(0)
    (inputs,) = DivideMix().mix(_seen(), visit)
    assert inputs[:, 0, 0, 0].tolist() == mixed[:4].tolist()
    targets = torch.tensor(REFINED + REFINED + GUESSED + GUESSED)
    _close(visit.scratch["targets"], (0.75 * targets + 0.25 * targets.flip(0))[:4].tolist())
    (inputs,) = DivideMix(lambda_u=25.0).mix(_seen(), visit)
    assert inputs[:, 0, 0, 0].tolist() == mixed.tolist()
    assert len(visit.scratch["targets"]) == 8


def test_strong_views_are_trained_on_and_weak_ones_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dividemix, "draw_mix", lambda *_, **__: AS_IT_IS)
    answers = _answers()
    visit = _late(torch.tensor([0, 2, 1, 1]), answers, [[0.9, 0.4, 0.1, 0.2], [0.0] * 4])
    (inputs,) = DivideMix(strong=True).mix(_seen(views=4), visit)
    assert inputs[:, 0, 0, 0].tolist() == [20, 21, 30, 31]
    assert answers.asked[0][1][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]


def test_views() -> None:
    assert DivideMix().views("crop-flip") == ["crop-flip"] * 2
    assert DivideMix().views("none") == ["flip"] * 2
    assert DivideMix(strong=True).views("none") == ["flip"] * 2 + ["flip-randaugment"] * 2
    assert DivideMix(strong=True).views("crop-flip-jitter") == ["crop-flip-jitter"] * 2 + ["crop-flip-randaugment"] * 2


def _late_batch(logits: Tensor, sizes: tuple[int, int] = (1, 1)) -> Batch:
    return replace(batch_of(Y, logits), sizes=sizes, network=0)


def test_the_loss_by_hand() -> None:
    visit = _late(Y, None, [[0.0] * 2] * 2)
    visit.scratch["targets"] = torch.tensor(REFINED, dtype=torch.float64)
    _close(DivideMix().loss(_late_batch(Z), visit), 0.794695 + 0.131060)
    visit.scratch["targets"] = torch.tensor(REFINED + GUESSED, dtype=torch.float64)
    both = _late_batch(torch.cat([Z, Z]))
    _close(DivideMix(lambda_u=25.0).loss(both, visit), 0.794695 + 25 * 0.008904 + 0.131060, atol=2e-5)
    visit.server_round = 25 + 4  # t = 28: a quarter of the ramp
    _close(DivideMix(lambda_u=25.0).loss(both, visit), 0.794695 + 6.25 * 0.008904 + 0.131060)
    _close(DivideMix(lambda_u=25.0).loss(_late_batch(Z, sizes=(1, 0)), visit), 0.794695 + 0.131060)


def test_its_gradient_is_that_of_fixed_targets() -> None:
    """Of the labelled part of one batch: ``(p - t) / n``, and through the mean of p for the prior."""
    visit = _late(Y, None, [[0.0] * 2] * 2)
    targets = visit.scratch["targets"] = torch.tensor(REFINED, dtype=torch.float64)
    logits = Z.clone().requires_grad_()
    DivideMix().loss(_late_batch(logits), visit).backward()
    ratio = (1 / 3) / P.mean(dim=0)
    prior = -P * (ratio - (P * ratio).sum(dim=1, keepdim=True)) / 2
    torch.testing.assert_close(logits.grad, (P - targets) / 2 + prior, rtol=0, atol=1e-6)


def test_warm_up_by_hand() -> None:
    visit = visit_of(Y, server_round=24, num_rounds=120)
    DivideMix().begin(visit)
    batch = replace(batch_of(Y, Z), sizes=(2,), network=1)
    _close(DivideMix().loss(batch, visit), 0.847437 - 0.798007)
    _close(DivideMix(confidence_penalty=0.0).loss(batch, visit), 0.847437)
    seen = Seen(torch.arange(2), Y, (2,), 1, [torch.zeros(2, 3, 1, 1), torch.ones(2, 3, 1, 1)])
    assert DivideMix().mix(seen, visit) == [seen.inputs[0]]
    steps = DivideMix().steps(visit)
    assert [(step.network, step.groups[0].sort().values.tolist()) for step in steps] == [(0, [0, 1]), (1, [0, 1])]


def test_the_weight_of_the_unlabelled_rises_as_worked_out() -> None:
    """T_w = 24 of 120 rounds, and 16 to rise."""
    method = DivideMix(lambda_u=25.0)
    weights = [25 * method.ramp_at(1 + t, 120) for t in (0, 24, 28, 32, 40, 119)]
    assert weights == pytest.approx([0, 0, 6.25, 12.5, 25, 25])
    at_once = DivideMix(ramp_rounds=0, warm_up_rounds=2)
    assert [at_once.ramp_at(server_round, 9) for server_round in (2, 3)] == [0, 1]


SMALL, LARGE = [0.05, 0.1, 0.12, 0.2, 0.3], [1.8, 2.1, 2.4]


def test_small_losses_are_clean_by_hand() -> None:
    found = clean(np.array(2 * (SMALL + LARGE)), 0.5)
    assert found == pytest.approx(2 * ([1] * 5 + [0] * 3), abs=1e-5)


@pytest.mark.parametrize(
    "losses", [SMALL + LARGE[:1] * 4, [0.7] * 20, [float("nan")] * 20, [0.1] * 19 + [float("inf")]]
)
def test_everybody_is_clean_where_losses_tell_nothing(losses: list[float]) -> None:
    assert clean(np.array(losses), 0.5).tolist() == [1] * len(losses)


def test_everybody_is_clean_if_nobody_is_certain_enough() -> None:
    losses = np.linspace(0, 1, 100)
    certain = clean(losses, 0.5)
    assert 0.5 < certain.max() < 0.999999
    assert clean(losses, 0.999999).tolist() == [1] * 100


def _logits_of(losses: list[float]) -> Tensor:
    """Of two classes, with these cross-entropies for label 0."""
    right = torch.tensor(losses, dtype=torch.float64).neg().exp()
    return torch.stack([right.log(), (1 - right).log()], dim=1)


def _divided(method: DivideMix, first: list[float], second: list[float], **values: Any) -> tuple[Visit, list[Any]]:
    """A visit to a client whose networks have these losses, and the steps of one epoch."""
    answers: Any = Answers(_logits_of(first), _logits_of(second))
    visit = _late(torch.zeros(len(first), dtype=torch.int64), answers, [], classes=2)
    for name, value in values.items():
        setattr(visit, name, value)
    method.begin(visit)
    return visit, list(method.steps(visit))


def test_each_network_trains_on_what_the_other_one_divided() -> None:
    first, second = SMALL * 2 + LARGE, LARGE + SMALL * 2
    visit, steps = _divided(DivideMix(), first, second, batch_size=4)
    for network, labelled, unlabelled in ((0, range(3, 13), range(3)), (1, range(10), range(10, 13))):
        mine = [step for step in steps if step.network == network]
        assert [len(step.groups[0]) for step in mine] == [4, 4, 2]
        assert torch.cat([step.groups[0] for step in mine]).sort().values.tolist() == list(labelled)
        assert [len(step.groups[1]) for step in mine] == [3, 3, 2]
        assert set(torch.cat([step.groups[1] for step in mine]).tolist()) == set(unlabelled)
        assert visit.scratch["clean"][network][list(labelled)].min() > 0.99
    assert [step.network for step in steps] == [0] * 3 + [1] * 3
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [True] * 3 + [False] * 10  # by the one whose division network 0 uses
    assert visit.suspicion is not None
    assert visit.suspicion.dtype is torch.float32
    assert torch.equal(visit.suspicion, 1 - visit.scratch["clean"][0])
    assert visit.suspicion[:3].min() > 0.99
    assert visit.suspicion[3:].max() < 0.01


def test_an_incomplete_batch_of_the_labelled_is_left_out_unless_it_is_the_only_one() -> None:
    losses = SMALL * 2 + LARGE
    for batch_size, sizes in ((4, [4, 4]), (64, [10])):
        _, steps = _divided(DivideMix(), losses, losses, batch_size=batch_size, drop_last=True)
        assert [len(step.groups[0]) for step in steps if step.network == 0] == sizes


@pytest.mark.parametrize(("lambda_u", "used"), [(0.0, 10), (25.0, 13)])
def test_a_client_may_weigh_what_it_trained_on(lambda_u: float, used: int) -> None:
    losses = SMALL * 2 + LARGE
    for weight, expected in (("held", None), ("used", used)):
        method = DivideMix(weigh_by=weight, lambda_u=lambda_u)
        visit, _ = _divided(method, losses, losses)
        method.end(visit)
        assert visit.used == expected


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 2.0, 2.5]), min_size=1, max_size=40), st.integers(1, 9), st.booleans())
def test_an_epoch_uses_no_more_than_it_says(losses: list[float], batch_size: int, drop_last: bool) -> None:
    _, steps = _divided(DivideMix(), losses, losses[::-1], batch_size=batch_size, drop_last=drop_last)
    assert steps
    assert sum(len(group) for step in steps for group in step.groups) <= DivideMix.passes * len(losses)
    assert all(len(step.groups[0]) >= max(1, len(step.groups[1])) for step in steps)


def test_unlabelled_batches_start_anew_when_they_run_out() -> None:
    batches = again_and_again(torch.tensor([5, 6, 7]), [2, 2, 4, 1], torch.Generator().manual_seed(0))
    assert [len(rows) for rows in batches] == [2, 2, 3, 1]
    drawn = torch.cat(batches).tolist()
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [5, 6, 7]
    assert [len(rows) for rows in again_and_again(torch.tensor([], dtype=torch.int64), [3, 3], torch.Generator())] == [
        0,
        0,
    ]


def test_mixing_and_loss_read_no_tensor() -> None:
    """Tensors without values refuse that, and masks that select rows; a GPU would wait for both."""

    class Nothing:
        def answer(self, network: int, inputs: Tensor, *, training: bool) -> Tensor:
            return torch.zeros(len(inputs), 5, device="meta")

    for lambda_u, count in ((0.0, 6), (25.0, 10)):
        method, nothing = DivideMix(lambda_u=lambda_u), Nothing()
        networks: Any = [0, 1]
        labels = torch.zeros(9, dtype=torch.int64, device="meta")
        visit = visit_of(labels, 5, server_round=9, num_rounds=10, networks=networks, inference=nothing)
        method.begin(visit)
        visit.scratch["clean"] = torch.zeros(2, 9, device="meta")
        rows = torch.zeros(5, dtype=torch.int64, device="meta")
        views = [torch.zeros(5, 3, 4, 4, device="meta") for _ in range(2)]
        (inputs,) = method.mix(Seen(rows, labels[rows], (3, 2), 1, views), visit)
        assert inputs.shape == (count, 3, 4, 4)
        logits = torch.zeros(count, 5, device="meta", requires_grad=True)
        loss = method.loss(replace(batch_of(labels[rows], logits, rows=rows), sizes=(3, 2), network=1), visit)
        loss.backward()
        assert loss.shape == ()
        assert logits.grad is not None
