"""FedDiv on a client: filter, new labels, sampler and loss by hand, the stages, and where there is little to judge."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from config.run_config import ConfigError
from learning.method import Seen, Visit
from learning.mixture import Mixture
from learning.mixup import Mix
from methods import feddiv
from methods.consistency_sampler import uniform_mean
from methods.feddiv import FedDiv, probably_clean
from methods.federated_mixture import DEVIATIONS, MEANS, MIXTURE, WEIGHTS
from methods.two_stages import NOISY
from tests.batches_of import Y, Z, batch_of, visit_of

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
    assert visit.suspicion is not None
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


@pytest.mark.parametrize(("rounds", "length"), [(1, 1), (2, 1), (5, 3), (10, 5), (40, 20), (100, 50)])
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


def test_the_smallest_losses_are_clean_however_wide_the_upper_gaussian_is() -> None:
    """Of a loss of 0, with equal shares: densities exp(-8) / .25 = .0013 below and exp(-2) / 1.5 = .09 above.

    At the lower mean, 1 / .25 = 4 and exp(-2 / 9 * 4) / 1.5 = .2741: 4 / 4.2741 = .9359.
    """
    wide = Mixture.of([1.0, 3.0, 0.25, 1.5, 0.5, 0.5])
    assert wide.lower(np.array([0.0]))[0] < 0.02
    np.testing.assert_allclose(probably_clean(np.array([0.0, 0.5, 1.0]), wide), 0.9359, atol=1e-4)
    assert probably_clean(np.array([9.0]), wide)[0] < 1e-9


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
