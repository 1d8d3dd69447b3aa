"""Joint optimisation: the loss and its gradient by hand, how labels follow predictions, and what lasts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from config.run_config import RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods.joint_optimization import JointOptimization
from task import Compute, build_model, derived_generator
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (10, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(10) % 4  # of five classes; the last is absent
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])


def _begun(method: JointOptimization, labels: Tensor = Y, server_round: int = 40, **values: Any) -> Visit:
    visit = visit_of(labels, server_round=server_round, num_rounds=40, **values)
    method.begin(visit)
    return visit


def _loss(method: JointOptimization, logits: Tensor = Z, labels: Tensor = Y, soft: Tensor | None = SOFT) -> Tensor:
    visit = _begun(method, labels)
    if soft is not None:
        visit.state["soft"] = soft
    return method.loss(batch_of(labels, logits), visit)


@pytest.mark.parametrize(
    ("alpha", "beta", "expected"),
    [(0, 0, 1.022437), (1, 0, 1.022437 + 0.131060), (0, 1, 1.022437 + 0.798007), (1.2, 0.8, 1.818115)],
)
def test_losses_by_hand(alpha: float, beta: float, expected: float) -> None:
    assert _loss(JointOptimization(alpha=alpha, beta=beta)).item() == pytest.approx(expected, abs=1e-5)


def test_the_authors_form_differs_by_the_priors_entropy() -> None:
    assert _loss(JointOptimization()).item() + 1.2 * math.log(3) == pytest.approx(3.136450, abs=1e-5)


def test_the_first_labels_are_the_given_ones() -> None:
    assert _loss(JointOptimization(alpha=0, beta=0), soft=None).item() == pytest.approx(0.847437, abs=1e-5)


@pytest.mark.parametrize("prior", ["uniform", "given"])
def test_the_gradient_in_closed_form(prior: str) -> None:
    """With respect to one image's logits, B times it is ``p - s``; ``-alpha p (r - <r, p>)`` where r = pi / p_mean;
    and ``-beta p (log p + H)``."""
    logits = Z.clone().requires_grad_()
    _loss(JointOptimization(prior=prior), logits).backward()
    p = Z.softmax(dim=1)
    ratio = (torch.tensor([1, 1, 1]) / 3 if prior == "uniform" else torch.tensor([0.5, 0, 0.5])) / p.mean(dim=0)
    entropy = -(p * p.log()).sum(dim=1, keepdim=True)
    spread = -p * (ratio - (p * ratio).sum(dim=1, keepdim=True))
    expected = (p - SOFT + 1.2 * spread - 0.8 * p * (p.log() + entropy)) / 2
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-7)


def test_the_prior_may_be_the_clients_own_in_which_classes_that_it_lacks_do_not_count() -> None:
    """pi = [.5, 0, .5]; L_p = sum pi log(pi / p_mean) with p_mean = [.488482, .375094, .136425]."""
    method = JointOptimization(alpha=1, beta=0, prior="given")
    spread = 0.5 * math.log(0.5 / 0.488482) + 0.5 * math.log(0.5 / 0.136425)
    assert _loss(method).item() == pytest.approx(1.022437 + spread, abs=1e-5)
    assert _loss(method, labels=torch.tensor([1, 1])).isfinite()


@pytest.mark.parametrize("size", [1, 2])
def test_certain_networks_have_finite_losses_and_gradients(size: int) -> None:
    """A class that is never predicted has a mean of 0 in float32, where log 0 would be infinite."""
    logits = torch.tensor([[900.0, 0.0, -900.0]]).repeat(size, 1).requires_grad_()
    loss = _loss(JointOptimization(), logits, Y[:size], SOFT[:size])
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def _certain(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def _epoch(method: JointOptimization, visit: Visit, logits: Tensor, rows: list[int]) -> None:
    at = torch.tensor(rows)
    method.loss(batch_of(visit.labels[at], logits, rows=at), visit)
    method.end_epoch(visit)


def test_labels_are_the_mean_of_the_latest_predictions_as_many_as_there_are() -> None:
    method = JointOptimization(history=2)
    visit = _begun(method)
    said = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.5, 0.25]]
    means = [said[0], [0.3125, 0.5, 0.1875], [0.1875, 0.625, 0.1875]]
    for probabilities, mean, label in zip(said, means, (0, 1, 1), strict=True):
        _epoch(method, visit, _certain(probabilities), [0])
        torch.testing.assert_close(visit.state["soft"], torch.tensor([mean, [0.0, 0.0, 1.0]]))
        assert visit.labels.tolist() == [label, 2]
    assert visit.given.tolist() == Y.tolist()


def test_young_labels_add_up_to_1() -> None:
    """Of 15 predictions, 5 and 10 are a third and two; divided by 15, labels would add up to that."""
    method = JointOptimization(history=15)
    visit = _begun(method)
    for _ in range(16):
        _epoch(method, visit, Z, [0, 1])
        torch.testing.assert_close(visit.state["soft"], Z.softmax(dim=1).float(), rtol=0, atol=5e-4)
        torch.testing.assert_close(visit.state["soft"].sum(dim=1), torch.ones(2))


def test_an_image_that_is_new_changes_no_label_of_its_batch() -> None:
    method = JointOptimization()
    visit = _begun(method, torch.tensor([0, 2]))
    _epoch(method, visit, _certain([0.25, 0.5, 0.25]), [0])
    _epoch(method, visit, _certain([0.25, 0.5, 0.25], [0.5, 0.25, 0.25]), [0, 1])
    assert visit.state["soft"].tolist() == [[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]
    assert visit.labels.tolist() == [1, 0]


def test_hard_labels_are_the_means_largest_class() -> None:
    method = JointOptimization(labels="hard", alpha=0, beta=0)
    visit = _begun(method)
    _epoch(method, visit, Z, [0, 1])
    assert visit.state["soft"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert visit.labels.tolist() == [0, 1]
    loss = method.loss(batch_of(visit.labels, Z), visit)
    assert loss.item() == pytest.approx(cross_entropy(Z, torch.tensor([0, 1])).item())


@pytest.mark.parametrize(
    ("values", "first"), [({}, 9), ({"warm_up": 0}, 1), ({"warm_up_rounds": 2}, 3), ({"warm_up": 0.5}, 21)]
)
def test_labels_change_after_the_warm_up_and_predictions_count_from_the_first_round(
    values: dict[str, Any], first: int
) -> None:
    method = JointOptimization(**values)
    visit = _begun(method)
    for server_round in range(1, first + 1):
        visit.server_round = server_round
        _epoch(method, visit, Z, [0, 1])
        assert visit.labels.tolist() == ([0, 1] if server_round == first else [0, 2])
        assert torch.equal(visit.state["soft"], one_hot(Y, 3)) is (server_round < first)
    assert visit.state["entries"].tolist() == [first, first]


def test_what_is_kept_of_each_image() -> None:
    state = _begun(JointOptimization(), torch.zeros(10_000, dtype=torch.int64), num_classes=14).state
    tables = sum(state[name].numel() * state[name].element_size() for name in ("history", "soft"))
    assert tables == 10_000 * (2 * 10 * 14 + 4 * 14)


def _visit(state: Any = None, relabelled: Any = None, epochs: int = 2, drop_last: bool = False, **values: Any) -> Any:
    config = RunConfig(
        model="cnn", image_size=16, batch_size=4, local_epochs=epochs, learning_rate=0.05, drop_last=drop_last
    )
    method = JointOptimization(**{"warm_up": 0, **values})
    return train_locally(
        build_model("cnn", 5, seed=3), IMAGES, LABELS, method, config, CPU, derived_generator(1, "t"), state=state,
        relabelled=relabelled,
    ).visit  # fmt: skip


def test_labels_last_from_visit_to_visit() -> None:
    first = _visit()
    kept = {name: value.clone() for name, value in first.state.items()}
    assert torch.equal(first.corrected, first.state["soft"].argmax(dim=1))
    assert torch.equal(first.given, LABELS)
    assert (first.corrected != LABELS).any()
    second = _visit(first.state, first.corrected, warm_up=1)  # in a warm-up labels stay as they are
    assert torch.equal(second.state["soft"], first.state["soft"])
    assert torch.equal(second.corrected, first.corrected)
    assert second.state["entries"].tolist() == [4] * 10
    for name, value in first.state.items():
        assert torch.equal(value, kept[name])  # what was handed in is not written into


def test_images_that_dropped_batches_never_held_keep_their_labels() -> None:
    visit = _visit(drop_last=True, epochs=1)
    unseen = visit.state["entries"] == 0
    assert unseen.sum() == 2
    assert torch.equal(visit.corrected[unseen], LABELS[unseen])
    assert torch.equal(visit.state["soft"][unseen], one_hot(LABELS, 5)[unseen])
    torch.testing.assert_close(visit.state["soft"].sum(dim=1), torch.ones(10))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"alpha": -1.0}, "alpha must be a number at least 0"),
        ({"beta": float("nan")}, "beta must be a number at least 0"),
        ({"history": 0}, "history must be a whole number of at least 1 and at most 1,000"),
        ({"labels": "firm"}, "labels must be one of soft, hard"),
        ({"prior": "global"}, "prior must be one of uniform, given"),
        ({"warm_up": 1.1}, "warm-up must be a number at least 0 and at most 1"),
        ({"warm_up_rounds": -3}, "warm-up-rounds must be a whole number from 0"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        JointOptimization(**values)
