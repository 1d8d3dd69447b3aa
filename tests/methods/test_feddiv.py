"""FedDiv on a client: filter, new labels, sampler and loss by hand, the stages, and where there is little to judge."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from config.run_config import ConfigError, RunConfig
from learning.method import Seen, Visit
from learning.mixup import Mix
from learning.training import train_locally
from methods import feddiv
from methods.consistency_sampler import (
    consistent,
    first_with_two,
    uniform_mean,
    updated_mean,
    without_a_single_one,
)
from methods.feddiv import FedDiv, probably_clean
from methods.federated_mixture import DEVIATIONS, MEANS, MIXTURE, WEIGHTS
from methods.two_stages import NOISY
from task import Compute, build_model, derived_generator
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
W = [0.5, 4.0, 0.5, 1.5, 0.6, 0.4]  # posterior of the lower 0.5 near a loss of 1.55
SIX = {MEANS, DEVIATIONS, WEIGHTS}
LATE: dict[str, Any] = {"server_round": 10, "num_rounds": 10, "told": {MIXTURE: W}}
# Ten images of three classes and label 0: p of class 0 and of class 1, and what becomes of each in the first epoch.
PREDICTED = [
    *[(0.8, 0.1)] * 5,  # loss 0.22: clean
    (0.15, 0.80),  # 1.90: noisy, and class 1 with 0.8 is above zeta
    (0.10, 0.76),  # 2.30: just above zeta
    (0.10, 0.70),  # 2.30: below it
    (0.02, 0.90),  # 3.91
    (0.25, 0.40),  # 1.39: clean, though class 1 is the likelier
]
LABELS = torch.zeros(10, dtype=torch.int64)


def _logits(pairs: list[tuple[float, float]]) -> Tensor:
    first, second = torch.tensor(pairs, dtype=torch.float64).T
    return torch.stack([first, second, 1 - first - second], dim=1).log()


class Answers:
    """A network whose logits for all images are given, one after the other; the last ones stay."""

    def __init__(self, *logits: Tensor) -> None:
        self.left, self.asked = list(logits), 0

    def on_all(self, network: Any) -> Tensor:
        self.asked += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def _begun(method: FedDiv, *logits: Tensor, labels: Tensor = LABELS, **values: Any) -> Visit:
    networks: Any = [None]
    visit = visit_of(labels, networks=networks, inference=Answers(*logits), **{**LATE, **values})
    method.begin(visit)
    if not method.warms_up(visit):
        method.judge(visit)  # as the first `steps` would
    return visit


def _rows(method: FedDiv, visit: Visit, epoch: int = 1) -> list[int]:
    visit.epoch = epoch
    return sorted(torch.cat([step.groups[0] for step in method.steps(visit)]).tolist())


def test_the_servers_mixture_filters_and_confident_images_get_new_labels_by_hand() -> None:
    visit = _begun(FedDiv(), _logits(PREDICTED))
    assert visit.suspected is not None
    assert visit.corrected is not None
    assert visit.suspected.tolist() == [False] * 5 + [True] * 4 + [False]
    assert visit.corrected.tolist() == [0] * 5 + [1, 1, 0, 1, 0]
    assert visit.labels.tolist() == visit.given.tolist() == [0] * 10
    assert visit.metrics[NOISY] == 1.0
    assert visit.suspicion.dtype == torch.float32
    order = visit.suspicion.argsort().tolist()
    assert order[-1] == 8
    assert set(order[:5]) == set(range(5))


def test_a_client_fits_its_own_mixture_but_filters_by_the_servers() -> None:
    """By its own, the image with a loss of 1.39 would be noisy."""
    visit = _begun(FedDiv(), _logits(PREDICTED))
    assert visit.metrics.keys() == {NOISY, *SIX}
    alone = _begun(FedDiv(), _logits(PREDICTED), told={})
    assert alone.suspected is not None
    assert alone.suspected.tolist() == [False] * 5 + [True] * 5


def test_the_sampler_keeps_what_is_consistent_by_hand() -> None:
    """p = (.7, .2, .1) and xi = .5 add (.178337, .804719, 1.151293) to the logits."""
    logits = torch.tensor([[2.0, 1.8, 0.0], [3.0, 1.0, 0.0], [0.0, 1.0, 0.8], [0.0, 1.0, 0.8]])
    mean = torch.tensor([0.7, 0.2, 0.1])
    assert consistent(torch.tensor([0, 0, 1, 2]), logits, mean, 0.5).tolist() == [False, True, False, True]
    assert consistent(torch.tensor([0, 0, 1, 2]), logits, mean, 0.0).tolist() == [True, True, True, False]


def test_the_running_mean_by_hand() -> None:
    """.2 (.7, .2, .1) + .8 (.3, .275, .425)."""
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.3, 0.6]]).log()
    found = updated_mean(torch.tensor([0.7, 0.2, 0.1]), logits, 0.2)
    torch.testing.assert_close(found, torch.tensor([0.38, 0.26, 0.36]))
    assert updated_mean(found, logits + math.nan, 0.2).tolist() == found.tolist()


def test_a_noisy_client_trains_on_the_clean_and_the_relabelled_that_are_consistent() -> None:
    """In epoch 1 p_k is uniform, and all predictions are consistent; in epoch 2 the network has changed its mind."""
    later = _logits([(0.2, 0.7), *PREDICTED[1:5], (0.8, 0.1), *PREDICTED[6:]])
    method = FedDiv()
    visit = _begun(method, _logits(PREDICTED), later)
    assert _rows(method, visit) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    p = _logits(PREDICTED).exp().mean(dim=0)  # (.462, .406, .132)
    torch.testing.assert_close(visit.state["mean-prediction"], 0.2 / 3 + 0.8 * p, check_dtype=False)
    # Image 9 had (.25, .40, .35), which -.5 log p_k turns into class 2; 0 and 5 are predicted otherwise now.
    assert _rows(method, visit, epoch=2) == [1, 2, 3, 4, 6, 8]
    method.end(visit)
    assert visit.used is None
    FedDiv(weigh_by="used").end(visit)
    assert visit.used == 9


def test_a_clean_client_trains_on_all_given_labels() -> None:
    """One of ten images is noisy, which is not above a tenth."""
    method = FedDiv()
    visit = _begun(method, _logits([*[(0.8, 0.1)] * 9, (0.02, 0.9)]))
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False] * 9 + [True]
    assert visit.metrics[NOISY] == 0.0
    assert visit.corrected is None
    assert _rows(method, visit) == _rows(method, visit, epoch=2) == list(range(10))
    assert isinstance(visit.inference, Answers)
    assert visit.inference.asked == 1
    method = FedDiv(noisy_share=0.05)
    visit = _begun(method, _logits([*[(0.8, 0.1)] * 9, (0.02, 0.9)]))
    assert visit.metrics[NOISY] == 1.0
    assert visit.corrected.tolist() == [0] * 9 + [1]


@pytest.mark.parametrize("last", [2, 3])
def test_the_filter_begins_in_the_round_after_the_warm_up(last: int) -> None:
    method = FedDiv(warm_up_rounds=2)
    visit = _begun(method, _logits(PREDICTED), server_round=last, num_rounds=10)
    assert (visit.suspected is None) == (last == 2)
    assert len(_rows(method, visit)) == (10 if last == 2 else 9)
    method.end(visit)
    assert visit.metrics.keys() == {NOISY, *SIX}
    assert visit.metrics[NOISY] == float(last == 3)
    assert (visit.corrected is None) == (last == 2)


def test_a_warm_up_visit_sends_the_mixture_of_the_network_that_it_trained() -> None:
    method = FedDiv()
    visit = _begun(method, _logits(PREDICTED), server_round=1, told={})
    assert visit.metrics == {NOISY: 0.0}
    assert isinstance(visit.inference, Answers)
    assert visit.inference.asked == 0
    method.end(visit)
    low = [-math.log(p) for p, _ in PREDICTED if p == 0.8]
    means = visit.metrics[MEANS]
    assert isinstance(means, list)
    assert means[0] == pytest.approx(low[0], abs=0.02)
    torch.testing.assert_close(
        visit.state["mean-prediction"], 0.2 / 3 + 0.8 * _logits(PREDICTED).exp().mean(dim=0), check_dtype=False
    )


@pytest.mark.parametrize(("rounds", "length"), [(1, 1), (2, 1), (5, 1), (10, 2), (40, 8), (100, 20)])
def test_lengths_of_the_warm_up(rounds: int, length: int) -> None:
    assert FedDiv().first_stage(rounds) == length
    assert FedDiv(warm_up=0.9).first_stage(2) == 1
    with pytest.raises(ConfigError, match="warm-up-rounds to 12, but 'num-server-rounds' is 12; it must be below"):
        FedDiv(warm_up_rounds=12).first_stage(12)


def _loss(method: FedDiv, share: float, logits: Tensor = Z, **values: Any) -> Tensor:
    visit = _begun(method, Z, labels=Y, **values)
    visit.scratch["mix"] = Mix(torch.tensor(share), torch.tensor([1, 0]))
    return method.loss(batch_of(Y, logits), visit)


def test_losses_by_hand() -> None:
    """CE of Z is .847437 with the own labels and 2.447438 with the partners'; sum q log(q / q_mean) is .131060."""
    assert _loss(FedDiv(), 1.0).item() == pytest.approx(0.847437, abs=1e-5)
    assert _loss(FedDiv(), 0.75).item() == pytest.approx(0.75 * 0.847437 + 0.25 * 2.447438, abs=1e-5)
    assert _loss(FedDiv(prior_weight=2), 0.75).item() == pytest.approx(1.247438 + 2 * 0.131060, abs=1e-5)
    assert _loss(FedDiv(prior_weight=2), 0.75, server_round=1).item() == pytest.approx(1.247438, abs=1e-5)


def test_its_gradient_is_that_of_mixed_labels() -> None:
    """``(p - t) / n`` with t = l onehot(y_i) + (1 - l) onehot(y_j)."""
    logits = Z.clone().requires_grad_()
    _loss(FedDiv(), 0.75, logits).backward()
    mixed = torch.tensor([[0.75, 0, 0.25], [0.25, 0, 0.75]])
    torch.testing.assert_close(logits.grad, (Z.softmax(dim=1) - mixed) / 2)


def test_the_new_labels_are_trained_on() -> None:
    method = FedDiv()
    visit = _begun(method, _logits(PREDICTED))
    visit.scratch["mix"] = Mix(torch.tensor(1.0), torch.tensor([1, 0]))
    rows = torch.tensor([5, 0])
    loss = method.loss(batch_of(LABELS[rows], _logits([(0.5, 0.25), (0.25, 0.5)]), rows=rows), visit)
    assert loss.item() == pytest.approx(-math.log(0.25))  # of class 1 and of class 0


def test_images_are_mixed_as_labels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(count: int, alpha: float, *_: Any) -> Mix:
        assert (count, alpha) == (2, 1.0)
        return Mix(torch.tensor(0.75), torch.tensor([1, 0]))

    monkeypatch.setattr(feddiv, "draw_mix", drawn)
    visit = _begun(FedDiv(), Z, labels=Y)
    inputs = torch.tensor([0.0, 4.0])[:, None, None, None].expand(2, 3, 1, 1)
    (mixed,) = FedDiv().mix(Seen(torch.arange(2), Y, (2,), 0, [inputs]), visit)
    assert mixed[:, 0, 0, 0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("logits", "rows"),
    [
        ([(0.02, 0.5)] * 10, list(range(10))),  # all noisy, nobody relabelled: everything
        ([*[(0.3, 0.35)] * 4, *[(0.02, 0.5)] * 6], [0, 1, 2, 3]),  # in epoch 2 nobody is consistent: the clean ones
        ([(0.3, 0.35), *[(0.02, 0.5)] * 9], list(range(10))),  # one clean image alone
    ],
)
def test_at_least_two_images_are_left(logits: list[tuple[float, float]], rows: list[int]) -> None:
    method = FedDiv()
    visit = _begun(method, _logits(logits), _logits([(0.1, 0.1)] * 10))
    _rows(method, visit)
    assert _rows(method, visit, epoch=2) == rows


def test_sets_and_batches_without_single_images() -> None:
    empty, one, two, more = (torch.arange(count) for count in (0, 1, 2, 5))
    assert first_with_two(two, more) is two
    assert first_with_two(empty, one, more) is more
    assert first_with_two(one, empty, one) is one
    assert [len(rows) for rows in without_a_single_one(list(more.split(2)), 2)] == [2, 3]
    assert [len(rows) for rows in without_a_single_one(list(more.split(3)), 3)] == [3, 2]
    assert [len(rows) for rows in without_a_single_one([one], 4)] == [1]
    assert [len(rows) for rows in without_a_single_one(list(more.split(1)), 1)] == [1] * 5


def test_without_a_mixture_and_with_losses_that_are_not_finite_all_are_clean() -> None:
    assert probably_clean(np.array([0.1, 9.0]), None).tolist() == [1, 1]
    visit = _begun(FedDiv(), _logits(PREDICTED) * math.nan)
    assert visit.suspected is not None
    assert not visit.suspected.any()
    assert visit.metrics == {NOISY: 0.0}
    assert visit.state["mean-prediction"].tolist() == uniform_mean(3, LABELS.device).tolist()


@pytest.mark.parametrize("count", range(1, 11))
def test_small_clients_filter_by_what_others_know_and_send_nothing(count: int) -> None:
    visit = _begun(FedDiv(), _logits(PREDICTED[::-1][:count]), labels=LABELS[:count])
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False, True, True, True, True, *[False] * 5][:count]
    assert visit.metrics.keys() == ({NOISY, *SIX} if count == 10 else {NOISY})
    alone = _begun(FedDiv(), _logits(PREDICTED[::-1][:count]), labels=LABELS[:count], told={})
    assert alone.suspected is not None
    assert alone.suspected.any() == (count == 10)


def test_equal_losses_are_all_clean_or_all_noisy() -> None:
    for share, noisy in ((0.8, False), (0.01, True)):
        visit = _begun(FedDiv(), _logits([(share, 0.1)] * 10))
        assert visit.suspected is not None
        assert visit.suspected.tolist() == [noisy] * 10
        assert visit.metrics == {NOISY: float(noisy)}


def _visit(method: FedDiv, count: int = 24, model: str = "cnn", classes: int = 4, **values: Any) -> Any:
    visits = {name: values.pop(name) for name in ("server_round", "told", "state", "order") if name in values}
    order = visits.pop("order", torch.arange(count))
    fixed = {"model": model, "image_size": 32, "batch_size": 6, "local_epochs": 2, "learning_rate": 0.05}
    config = RunConfig(**{**fixed, "num_server_rounds": 10, **values})
    images = torch.randint(256, (count, 32, 32, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    trained, labels = build_model(model, 5, seed=3), torch.arange(count) % classes
    return train_locally(
        trained, images[order], labels[order], method, config, CPU, derived_generator(1, "t"),
        **{"server_round": 10, "told": {MIXTURE: [1.4, 1.8, 0.3, 0.3, 0.5, 0.5]}, **visits},
    )  # fmt: skip


@pytest.mark.parametrize("server_round", [1, 10])
def test_a_visit_can_be_repeated_and_remembers_the_mean_prediction(server_round: int) -> None:
    method = FedDiv(prior_weight=1.0, confidence=0.2)
    first = _visit(method, server_round=server_round)
    again = _visit(method, server_round=server_round)
    assert again.epoch_losses == first.epoch_losses
    assert first.visit.metrics == again.visit.metrics
    assert first.visit.metrics.keys() == {NOISY, *SIX}
    mean = first.visit.state["mean-prediction"]
    assert mean.shape == (5,)
    assert mean.sum().item() == pytest.approx(1, abs=1e-5)
    later = _visit(method, server_round=server_round, state=first.visit.state)
    assert not torch.equal(later.visit.state["mean-prediction"], mean)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 10]), st.booleans())
def test_clients_of_any_size_train(count: int, batch_size: int, server_round: int, drop_last: bool) -> None:
    report = _visit(
        FedDiv(), count=count, batch_size=batch_size, server_round=server_round, drop_last=drop_last, classes=1,
    )  # fmt: skip
    assert all(np.isfinite(report.epoch_losses))
    assert 0 < report.images_seen <= 2 * count


@pytest.mark.parametrize("kept", [1, 7, 13])
def test_batchnorm_never_meets_a_single_image(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """A ResNet leaves one pixel of 32 x 32, of which BatchNorm needs two images. Batches of 6 would leave one."""
    monkeypatch.setattr(feddiv, "consistent", lambda predicted, *_: torch.arange(len(predicted)) < kept)
    told = {MIXTURE: [0.5, 9.9, 4.0, 0.3, 0.9, 0.1]}
    method = FedDiv(threshold=0.0, noisy_share=0.0)
    monkeypatch.setattr(feddiv, "probably_clean", lambda losses, _: np.where(np.arange(len(losses)) == 23, -1.0, 1.0))
    report = _visit(method, model="resnet18", local_epochs=1, drop_last=False, told=told)
    assert report.images_seen == (23 if kept == 1 else kept)


def test_a_visit_says_the_same_of_images_in_another_order() -> None:
    """And nothing of it has one entry for each image."""
    order = torch.arange(24)
    order[[0, 13]] = order[[13, 0]]
    one, other = (_visit(FedDiv(), order=some).visit for some in (torch.arange(24), order))
    shapes = [{name: np.shape(value) for name, value in visit.metrics.items()} for visit in (one, other)]
    assert shapes[0] == shapes[1] == {NOISY: (), **dict.fromkeys(SIX, (2,))}
    for name in SIX:
        assert one.metrics[name] == pytest.approx(other.metrics[name], abs=1e-5)
    assert one.sends == other.sends == {}


def test_mixing_and_loss_read_no_tensor() -> None:
    """Tensors without values refuse that, and masks that select rows; a GPU would wait for both."""
    method = FedDiv(prior_weight=1.0)
    visit = visit_of(torch.zeros(9, dtype=torch.int64, device="meta"), 5, server_round=1, num_rounds=10)
    method.begin(visit)
    visit.server_round = 9
    rows = torch.zeros(4, dtype=torch.int64, device="meta")
    (inputs,) = method.mix(Seen(rows, visit.given[rows], (4,), 0, [torch.zeros(4, 3, 2, 2, device="meta")]), visit)
    assert inputs.shape == (4, 3, 2, 2)
    logits = torch.zeros(4, 5, device="meta", requires_grad=True)
    loss = method.loss(batch_of(visit.given[rows], logits, rows=rows), visit)
    loss.backward()
    assert loss.shape == ()
    assert logits.grad is not None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"warm_up": 1.0}, "warm-up must be a number above 0 and below 1"),
        ({"warm_up_rounds": 0}, "warm-up-rounds must be a whole number from 1"),
        ({"iterations": -1}, "iterations must be a whole number of at least 0"),
        ({"threshold": 1.5}, "threshold must be a number at least 0 and at most 1"),
        ({"noisy_share": -0.1}, "noisy-share must be a number at least 0 and at most 1"),
        ({"confidence": float("nan")}, "confidence must be a number at least 0 and at most 1"),
        ({"debias": -1.0}, "debias must be a number at least 0"),
        ({"momentum": 1.0}, "momentum must be a number at least 0 and below 1"),
        ({"alpha": 0.0}, "alpha must be a number above 0"),
        ({"prior_weight": -1.0}, "prior-weight must be a number at least 0"),
        ({"weigh_by": "some"}, "weigh-by must be one of held, used"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FedDiv(**values)
    assert {field.name for field in fields(FedDiv)} >= set(values)
