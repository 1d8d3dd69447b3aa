"""SELFIE: uncertainties by hand, which images of a batch are learned with which labels, and what lasts."""

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from config.run_config import RunConfig
from learning.method import Visit
from learning.training import train_locally
from methods import build_method
from methods.selfie import SELFIE, judged, trusted
from task import Compute, build_model, derived_generator
from tests.batches_of import batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (10, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(10) % 4  # of five classes; the last is absent
GIVEN = torch.tensor([0, 0, 0, 0, 1])


def _says(*classes: int, classes_in_all: int = 3, by: float = 2.0) -> Tensor:
    """Logits of a network that predicts these classes."""
    return by * one_hot(torch.tensor(classes), classes_in_all).double()


def _begun(method: SELFIE, labels: Tensor = GIVEN, server_round: int = 40, **values: Any) -> Visit:
    visit = visit_of(labels, server_round=server_round, num_rounds=40, **values)
    method.begin(visit)
    return visit


def _step(method: SELFIE, visit: Visit, logits: Tensor, rows: Tensor | None = None) -> Tensor:
    rows = torch.arange(len(logits)) if rows is None else rows
    return method.loss(batch_of(visit.labels[rows], logits, rows=rows), visit)


@pytest.mark.parametrize(
    ("majority", "expected"),
    [(15, 0.0), (14, 0.092810), (13, 0.148793), (12, 0.189614), (11, 0.219743), (10, 0.241190), (8, 0.261807)],
)
def test_uncertainties_of_15_predictions_among_14_classes_by_hand(majority: int, expected: float) -> None:
    history = torch.tensor([[3] * majority + [9] * (15 - majority), [9] * majority + [3] * (15 - majority)])
    uncertainties, classes = judged(history.int(), 14)
    assert uncertainties.tolist() == pytest.approx([expected] * 2, abs=1e-5)
    assert classes.tolist() == [3, 9]


def test_of_ten_classes_one_that_differs_is_too_much_as_well() -> None:
    uncertainties, _ = judged(torch.tensor([[1] * 14 + [0]]).int(), 10)
    assert uncertainties.item() == pytest.approx(0.106, abs=5e-4)
    assert uncertainties.item() > SELFIE().threshold


def test_the_first_of_equally_frequent_classes_is_taken_and_all_different_ones_are_most_uncertain() -> None:
    uncertainties, classes = judged(torch.tensor([[2, 1, 1, 2], [0, 1, 2, 3]]).int(), 4)
    assert classes.tolist() == [1, 0]
    assert uncertainties.tolist() == pytest.approx([0.5, 1.0])


@given(st.integers(0, 999), st.integers(1, 1024))
@example(700, 10)  # (1 - 0.7) * 10 is 3.0000000000000004
def test_how_many_are_trusted_is_exact(thousandths: int, count: int) -> None:
    exact = math.ceil((1 - Fraction(thousandths, 1000)) * count)
    assert trusted(thousandths / 1000, count) == max(1, exact)


@pytest.mark.parametrize("server_round", [1, 8])
def test_in_the_warm_up_all_images_are_learned_as_given_and_predictions_are_kept(server_round: int) -> None:
    method = SELFIE(history=1)
    visit, logits = _begun(method, server_round=server_round), _says(1, 0, 0, 0, 0)
    assert _step(method, visit, logits).item() == pytest.approx(cross_entropy(logits, GIVEN).item())
    assert visit.state["history"].squeeze(1).tolist() == [1, 0, 0, 0, 0]
    assert torch.equal(visit.labels, GIVEN)
    visit.server_round = 9
    _step(method, visit, logits)
    assert visit.labels.tolist() == [1, 0, 0, 0, 0]


def test_small_losses_and_corrected_labels_are_learned_by_hand() -> None:
    """Two predictions each; images 3 and 4 are unanimous, image 0 is not. Of five, ceil(.4 * 5) = 2 are easy."""
    method = SELFIE(noise_rate=0.6, history=2, warm_up=0)
    visit = _begun(method)
    first = _step(method, visit, _says(2, 1, 1, 1, 0))
    assert torch.equal(visit.labels, GIVEN)  # after one prediction nothing is certain
    assert not visit.state["certain"].any()
    p = math.exp(2) / (math.exp(2) + 2)  # of the class that a network says; the others have (1 - p) / 2
    assert first.item() == pytest.approx(-math.log((1 - p) / 2))  # all losses are equal: images 0 and 1 are learned
    # Image 0 is easiest now, then 1; corrected are images 3 (to 1) and 4 (to 0).
    logits = torch.cat([_says(0, by=3), _says(0), _says(2), _says(1, by=1), _says(0, by=1)])
    loss = _step(method, visit, logits)
    assert visit.labels.tolist() == [0, 0, 0, 1, 0]
    assert visit.state["certain"].tolist() == [False, False, False, True, True]
    q = {by: math.exp(by) / (math.exp(by) + 2) for by in (1, 2, 3)}
    assert loss.item() == pytest.approx(-(math.log(q[3]) + math.log(q[2]) + 2 * math.log(q[1])) / 4)


def test_gradients_come_from_learned_images_alone_with_their_new_labels() -> None:
    method = SELFIE(noise_rate=0.6, history=1, warm_up=0, threshold=0)
    visit = _begun(method)
    logits = _says(0, 0, 1, 1, 2).requires_grad_()
    visit.state["history"][:] = 5  # what the first entries replace
    _step(method, visit, logits).backward()
    alone = logits.detach().clone().requires_grad_()
    cross_entropy(alone, torch.tensor([0, 0, 1, 1, 2])).backward()  # a single prediction is always unanimous
    torch.testing.assert_close(logits.grad, alone.grad)
    method = SELFIE(noise_rate=0.6, history=2, warm_up=0)
    visit = _begun(method)
    logits.grad = None
    _step(method, visit, logits).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == [True, True, False, False, False]


def test_easy_images_are_chosen_by_given_labels_not_by_corrected_ones() -> None:
    """Image 0 is corrected to class 1, which the network predicts; its given label still makes it hard."""
    method = SELFIE(noise_rate=0.5, history=1, warm_up=0)
    visit = _begun(method, torch.tensor([0, 0]))
    _step(method, visit, _says(1, 0))
    assert visit.labels.tolist() == [1, 0]
    visit.state["certain"][:] = False
    visit.state["entries"][:] = -9  # so that nothing is certain this time
    logits = torch.cat([_says(1, by=5), _says(0, by=1)])
    loss = _step(method, visit, logits)
    assert loss.item() == pytest.approx(cross_entropy(logits[1:], torch.tensor([0])).item())


def test_an_image_that_was_first_predicted_as_class_0_is_not_certain_before_its_history_is_full() -> None:
    method = SELFIE(history=3, warm_up=0)
    visit = _begun(method)
    for expected in (1, 1, 0):
        _step(method, visit, _says(0, 0, 0, 0, 0))
        assert visit.labels[4] == expected


def test_a_corrected_label_follows_certain_predictions_and_stays_through_uncertain_ones() -> None:
    method = SELFIE(noise_rate=0.9, history=2, warm_up=0)
    visit, row = _begun(method), torch.tensor([3])
    labels = []
    for said in (1, 1, 2, 1, 2, 2, 0):
        loss = _step(method, visit, _says(said), row)
        labels.append(int(visit.labels[3]))
    assert labels == [0, 1, 1, 1, 1, 2, 2]
    assert loss.item() == pytest.approx(cross_entropy(_says(0), torch.tensor([2])).item())
    assert visit.state["history"][3].tolist() == [0, 2]
    assert visit.state["entries"].tolist() == [0, 0, 0, 7, 0]
    assert visit.given.tolist() == GIVEN.tolist()


def test_a_tenth_lets_one_prediction_of_fifteen_differ() -> None:
    for threshold, corrected in ((0.05, False), (0.1, True)):
        method = SELFIE(threshold=threshold, warm_up=0)
        visit = _begun(method, torch.tensor([0]), num_classes=14)
        for said in [3] * 7 + [5] + [3] * 7:
            _step(method, visit, _says(said, classes_in_all=14))
        assert (visit.labels[0] == 3) == corrected


def _visit(state: Any = None, relabelled: Any = None, epochs: int = 3, drop_last: bool = False, **values: Any) -> Any:
    config = RunConfig(
        model="cnn", image_size=16, batch_size=4, local_epochs=epochs, learning_rate=0.05, drop_last=drop_last
    )
    model = build_model("cnn", 5, seed=3)
    method = SELFIE(**{"history": 3, "warm_up": 0, **values})
    report = train_locally(
        model, IMAGES, LABELS, method, config, CPU, derived_generator(1, "t"), state=state, relabelled=relabelled
    )
    return report.visit


def test_labels_and_histories_last_from_visit_to_visit() -> None:
    first = _visit(history=2)
    assert first.corrected is not None
    assert torch.equal(first.given, LABELS)
    assert (first.corrected != LABELS).any()
    assert not first.state["certain"][first.corrected != LABELS].logical_not().any()
    second = _visit(first.state, first.corrected, epochs=1, history=2)
    assert second.state["entries"].tolist() == [4] * 10
    assert (second.state["certain"] >= first.state["certain"]).all()
    assert torch.equal(second.given, LABELS)


def test_images_that_dropped_batches_held_keep_their_labels() -> None:
    visit = _visit(epochs=1, drop_last=True, history=1)
    unseen = visit.state["entries"] == 0
    assert unseen.sum() == 2
    assert torch.equal(visit.corrected[unseen], LABELS[unseen])


def test_a_client_can_be_weighed_by_what_it_learned_from() -> None:
    """Nothing is ever certain here: of batches of 4, 4 and 2, 2, 2 and 1 are learned in each epoch."""
    assert _visit(history=9, noise_rate=0.5).used is None
    assert _visit(history=9, noise_rate=0.5, weigh_by="used").used == 5
    assert _visit(history=9, noise_rate=0.5, weigh_by="used", warm_up=1).used == 10
    assert _visit(history=9, noise_rate=0.99, weigh_by="used", drop_last=True).used == 2
    assert _visit(history=1, noise_rate=0.5, weigh_by="used").used == 10  # everything is


@pytest.mark.parametrize(("args", "epochs", "warned"), [("", 5, True), ("history=10", 5, False), ("", 8, False)])
def test_the_server_warns_of_histories_that_will_not_fill(
    caplog: pytest.LogCaptureFixture, args: str, epochs: int, warned: bool
) -> None:
    """40 rounds with a twentieth of the clients: two visits each."""
    config = RunConfig(
        method="selfie", method_args=args, num_server_rounds=40, fraction_train=0.05, local_epochs=epochs
    )
    build_method(config).on_server().prepare(config, None)  # type: ignore[arg-type]
    said = ["after 15 predictions, but a client of this run makes about 10 for each" in one for one in caplog.messages]
    assert said == [True] * warned


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"noise_rate": 1.0}, "noise-rate must be a number at least 0 and below 1"),
        ({"history": 0}, "history must be a whole number of at least 1 and at most 1,000"),
        ({"threshold": -0.1}, "threshold must be a number at least 0 and at most 1"),
        ({"warm_up": 2}, "warm-up must be a number at least 0 and at most 1"),
        ({"warm_up_rounds": -3}, "warm-up-rounds must be a whole number from 0"),
        ({"weigh_by": "all"}, "weigh-by must be one of held, used"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SELFIE(**values)
