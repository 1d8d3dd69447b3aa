"""FedCorr on the client: the loss, what it reports, and which labels it changes and when."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from learning.method import Told, Visit
from learning.mixup import Mix
from learning.schema import problem_of
from methods.dimension import LARGEST
from methods.fedcorr import LARGEST_ERROR, FedCorr, distance, highest, in_the_higher_part
from task import Compute
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
CLASSES = 3


def _told(stage: int = 1, noisy: bool = True, delta: float = 0.0, judgements: int = 1) -> dict[str, Told]:
    return {"stage": stage, "noisy": noisy, "delta": delta, "judgements": judgements}


class Answers:
    """Stands in for `Inference`: what the network says of all images, as the test sets it."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.asked = logits, 0

    def on_all(self, network: nn.Module) -> Tensor:
        self.asked += 1
        return self.logits


def _visit(labels: Tensor, logits: Tensor, told: dict[str, Told] | None = None, **values: Any) -> Visit:
    fixed = {"told": told or {}, "networks": [nn.Linear(2, 1, bias=False)], "inference": Answers(logits)}
    return visit_of(labels, CLASSES, **{**fixed, **values})


def _logits(*probabilities: float, classes: Tensor) -> Tensor:
    """Of which the softmax has these largest values, at these classes, and the rest is even."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    spread = ((1 - p) / (CLASSES - 1))[:, None].expand(-1, CLASSES).clone()
    return spread.scatter(1, classes[:, None], p[:, None]).log()


# --- the loss


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.847437), (0.25, 2.047437), (0.0, 2.447437)])
def test_mixed_losses_by_hand(share: float, expected: float) -> None:
    """-log p of Z are 0.241311 and 3.241311 for classes 0 and 2 of the first image, 1.653564 and 1.453564 of the other:
    means 0.847437 with the own labels, 0 and 2, and 2.447437 with the partners'."""
    visit = visit_of(Y)
    visit.scratch["mix"] = Mix(torch.tensor(share), torch.tensor([1, 0]))
    assert FedCorr().loss(batch_of(Y, Z), visit).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("proximal", "term", "gradient"), [("norm", 10.0, [1.2, 1.6]), ("squared", 50.0, [12.0, 16.0])]
)
def test_the_proximal_term_by_hand(proximal: str, term: float, gradient: list[float]) -> None:
    """w - w_t = (3, 4), of norm 5, and beta delta = 5 * 0.4 = 2: 2 * 5 and 2 * 25; 2 (3, 4) / 5 and 2 * 2 (3, 4)."""
    method = FedCorr(alpha=0, proximal=proximal)
    visit = _visit(Y, Z, _told(delta=0.4, judgements=0))
    (weight,) = visit.networks[0].parameters()
    weight.data = torch.tensor([[1.0, 2.0]])
    method.begin(visit)
    weight.data = torch.tensor([[4.0, 6.0]])
    loss = method.loss(batch_of(Y, Z), visit)
    assert loss.item() == pytest.approx(0.847437 + term, abs=1e-5)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad[0].tolist() == pytest.approx(gradient, rel=1e-6)


@pytest.mark.parametrize("proximal", ["norm", "squared"])
def test_there_is_no_pull_where_training_starts(proximal: str) -> None:
    """The root of a sum of squares would have a gradient of NaN."""
    method, visit = FedCorr(alpha=0, proximal=proximal), _visit(Y, Z, _told(delta=0.4, judgements=0))
    method.begin(visit)
    method.loss(batch_of(Y, Z.clone().requires_grad_()), visit).backward()
    (weight,) = visit.networks[0].parameters()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0.0, 0.0]]


def test_a_distance_is_that_of_all_tensors_together() -> None:
    """1, 2, 2 and 4: their squares add up to 25."""
    weights = [torch.tensor([1.0, 2.0]), torch.tensor([[2.0], [4.0]])]
    assert distance(weights, [torch.zeros(2), torch.zeros(2, 1)]).item() == 5.0


@pytest.mark.parametrize("told", [{}, _told(noisy=False), _told(stage=2), _told(stage=3, noisy=False)])
def test_clients_that_are_told_no_delta_are_not_pulled(told: dict[str, Told]) -> None:
    method, visit = FedCorr(), _visit(Y, Z, told)
    method.begin(visit)
    assert "start" not in visit.scratch
    no_pull = _visit(Y, Z, _told(delta=0.4, judgements=0))
    FedCorr(beta=0).begin(no_pull)
    assert "start" not in no_pull.scratch


# --- what a client finds and reports

LOSSES = torch.tensor([0.1, 0.2, 0.15, 0.12, 0.18, 0.11, 0.16, 0.13, 3.0, 2.8, 3.1, 2.9])  # of twelve images, four high
HIGH = [8, 9, 10, 11]


def _with_losses(losses: Tensor) -> tuple[Tensor, Tensor]:
    """Labels 0 and logits for which their cross-entropy is this."""
    return torch.zeros(len(losses), dtype=torch.int64), _logits(
        *(-losses).exp().tolist(), classes=torch.zeros_like(losses).long()
    )


def test_a_client_reports_the_share_of_high_losses_and_its_mean_dimension_with_its_error() -> None:
    """Four of twelve; the dimension is that of the probabilities, among eleven others."""
    labels, logits = _with_losses(LOSSES)
    visit = _visit(labels, logits)
    FedCorr().begin(visit)
    FedCorr().end(visit)
    points = logits.softmax(dim=1).numpy()
    gaps = [sorted(math.dist(one, other) for j, other in enumerate(points) if j != i) for i, one in enumerate(points)]
    lids = [-11 / sum(math.log(r / one[-1]) for r in one) for one in gaps]
    mean = sum(lids) / 12
    error = math.sqrt(sum((lid - mean) ** 2 for lid in lids) / 11 / 12)
    expected = {"noisy-share": 4 / 12, "lid": mean, "lid-error": error}
    assert visit.metrics == {"noisy": 0.0, **{name: pytest.approx(value) for name, value in expected.items()}}
    assert problem_of(visit.metrics, FedCorr().reports({}, CLASSES)) is None
    torch.testing.assert_close(visit.state["losses"], LOSSES)


def test_losses_add_up_with_the_labels_of_their_time() -> None:
    """The second visit has image 0 relabelled as 1, where p is (1 - e^-0.1) / 2; suspicion goes by given labels."""
    labels, logits = _with_losses(LOSSES)
    first = _visit(labels, logits)
    FedCorr().end(first)
    second = _visit(labels, logits, state=dict(first.state))
    second.labels[0] = 1
    FedCorr().end(second)
    expected = 2 * LOSSES
    expected[0] = 0.1 - math.log((1 - math.exp(-0.1)) / 2)
    torch.testing.assert_close(second.state["losses"], expected)
    assert second.suspicion is not None
    torch.testing.assert_close(second.suspicion, 2 * LOSSES)
    torch.testing.assert_close(first.state["losses"], LOSSES)  # not written into


def test_the_higher_part_by_hand() -> None:
    assert np.flatnonzero(in_the_higher_part(LOSSES.double().numpy())).tolist() == HIGH
    assert np.flatnonzero(in_the_higher_part(100 * LOSSES.double().numpy() + 7)).tolist() == HIGH


@pytest.mark.parametrize("losses", [np.ones(12), np.zeros(1), np.arange(9.0)])
def test_equal_losses_and_a_few_images_have_no_higher_part(losses: np.ndarray) -> None:
    assert not in_the_higher_part(losses).any()


@given(st.lists(st.floats(0, 1e4, width=32), min_size=10, max_size=40))
def test_the_higher_part_is_never_all_and_never_has_the_smallest(losses: list[float]) -> None:
    values = np.array(losses)
    found = in_the_higher_part(values)
    assert not found[values.argmin()]


@pytest.mark.parametrize("count", range(1, 11))
def test_a_client_with_a_few_images(count: int) -> None:
    labels, logits = _with_losses(LOSSES[-count:])
    method, visit = FedCorr(), _visit(labels, logits, _told(judgements=0))
    method.begin(visit)
    method.end(visit)
    assert ("lid" in visit.metrics) == ("lid-error" in visit.metrics) == (count >= 10)
    assert (visit.metrics["noisy-share"] == 0) == (count < 10)
    assert problem_of(visit.metrics, method.reports(visit.told, CLASSES)) is None
    assert visit.suspected is not None
    assert visit.suspected.any().item() == (count >= 10)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_answers_that_are_not_finite_make_finite_reports(value: float) -> None:
    labels, logits = _with_losses(LOSSES)
    logits[3, 1] = value
    visit = _visit(labels, logits)
    FedCorr().begin(visit)
    FedCorr().end(visit)
    assert problem_of(visit.metrics, FedCorr().reports({}, CLASSES)) is None
    assert visit.state["losses"].isfinite().all()


def test_images_of_one_class_that_all_look_alike() -> None:
    labels, logits = torch.zeros(30, dtype=torch.int64), torch.ones(30, CLASSES)
    visit = _visit(labels, logits)
    FedCorr().begin(visit)
    FedCorr().end(visit)
    assert visit.metrics == {"noisy": 0.0, "noisy-share": 0.0, "lid": 0.0, "lid-error": 0.0}


def test_what_a_reply_must_hold() -> None:
    assert FedCorr().reports({}, CLASSES).keys() == {"noisy", "noisy-share", "lid", "lid-error"}
    for stage in (2, 3):
        assert FedCorr().reports(_told(stage), CLASSES).keys() == {"noisy"}
    wrong = {"noisy": 0.0, "noisy-share": 0.5, "lid": 3.0, "lid-error": 0.1}  # it was told that it is noisy
    assert problem_of(wrong, FedCorr().reports(_told(), CLASSES)) == "'noisy' is 0.0; it must be 1"


def test_the_largest_error_that_a_mean_of_dimensions_may_have() -> None:
    """Five of ten images with 0 and five with 1000: 500 sqrt(10 / 9) / sqrt(10)."""
    largest = np.repeat([0.0, LARGEST], 5).std(ddof=1) / math.sqrt(10)
    assert pytest.approx(largest, rel=1e-12) == LARGEST_ERROR
    reply = {"noisy": 0.0, "noisy-share": 0.5, "lid": 3.0, "lid-error": 167.0}
    assert (
        problem_of(reply, FedCorr().reports({}, CLASSES))
        == "'lid-error' is 167.0; it must be a number from 0 to 166.666666667"
    )


# --- labels

SURE = _logits(*[0.95] * 8, 0.95, 0.85, 0.95, 0.95, classes=torch.ones(12, dtype=torch.int64))  # of class 1, but for 9


def _judged(told: dict[str, Told], method: FedCorr | None = None, state: dict[str, Tensor] | None = None) -> Visit:
    """A client whose losses are `LOSSES`, when a model arrives."""
    kept = {"losses": LOSSES.clone(), "given-losses": LOSSES.clone(), **(state or {})}
    visit = _visit(torch.zeros(12, dtype=torch.int64), SURE, told, state=kept)
    (method or FedCorr()).begin(visit)
    return visit


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({}, [8, 10, 11]),  # floor(4 * 0.8) = 3 highest losses, of images 10, 8 and 11
        ({"relabel_ratio": 1.0}, [8, 10, 11]),  # 9 as well, of which the model is not sure
        ({"relabel_ratio": 1.0, "confidence": 0.8}, [8, 9, 10, 11]),
        ({"relabel_ratio": 0.5}, [8, 10]),
        ({"relabel_ratio": 0.49}, [10]),
        ({"relabel_ratio": 0.0}, []),
        ({"confidence": 0.96}, []),
    ],
)
def test_a_noisy_client_relabels_the_highest_losses_of_which_the_model_is_sure(
    values: dict[str, float], changed: list[int]
) -> None:
    for stage in (1, 2):
        visit = _judged(_told(stage), FedCorr(**values))  # type: ignore[arg-type]
        assert visit.labels.tolist() == [int(k in changed) for k in range(12)]
        assert not visit.given.any()


def test_after_stage_2_a_noisy_client_relabels_all_of_which_the_model_is_sure() -> None:
    assert _judged(_told(3)).labels.tolist() == [1] * 9 + [0, 1, 1]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_clean_client_keeps_its_labels_and_suspects_nobody(stage: int) -> None:
    """Also one that was noisy before, and has changed some."""
    visit = _judged(_told(stage, noisy=False))
    assert visit.inference.asked == 0  # type: ignore[union-attr]
    visit.labels[8] = 1
    FedCorr().end(visit)
    assert visit.labels.tolist() == [0] * 8 + [1] + [0] * 3
    assert visit.suspected is not None
    assert not visit.suspected.any()


def test_a_client_relabels_once_for_each_judgement_and_once_at_the_end() -> None:
    """Whatever the model says the second time, and however often it is visited."""
    asked = []
    state: dict[str, Tensor] = {}
    for stage, judgements in ((1, 1), (1, 1), (1, 2), (2, 2), (2, 2), (3, 2), (3, 2)):
        visit = _judged(_told(stage, judgements=judgements), state=state)
        state = visit.state
        asked.append(visit.inference.asked)  # type: ignore[union-attr]
    assert asked == [1, 0, 1, 0, 0, 1, 0]


def test_before_the_first_judgement_nobody_relabels() -> None:
    assert not _judged(_told(noisy=False, judgements=0)).labels.any()


def test_a_client_that_lost_its_state_relabels_at_the_end_alone() -> None:
    for stage, labels in ((1, [0] * 12), (2, [0] * 12), (3, [1] * 9 + [0, 1, 1])):
        visit = _visit(torch.zeros(12, dtype=torch.int64), SURE, _told(stage))
        FedCorr().begin(visit)
        assert visit.labels.tolist() == labels
        assert ("relabelled" in visit.state) == (stage == 3)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_noisy_client_suspects_high_losses_and_what_it_relabelled(stage: int) -> None:
    visit = _judged(_told(stage))
    FedCorr().end(visit)
    assert visit.suspected is not None
    expected = HIGH if stage == 2 else [k for k in range(12) if k != 9] + [9]
    assert visit.suspected.nonzero()[:, 0].tolist() == sorted(expected)
    assert visit.suspicion is not None
    assert torch.equal(visit.suspicion, LOSSES)
    assert visit.metrics == {"noisy": 1.0}


def test_a_client_that_was_never_visited_in_stage_1_judges_nothing() -> None:
    visit = _visit(Y, Z, _told(2, noisy=False))
    FedCorr().begin(visit)
    FedCorr().end(visit)
    assert visit.suspected is None
    assert visit.state == {}


def test_of_equal_losses_the_first_are_the_highest() -> None:
    assert highest(torch.tensor([1.0, 3.0, 3.0, 3.0]), 2).tolist() == [False, True, True, False]
    assert not highest(torch.ones(3), 0).any()
