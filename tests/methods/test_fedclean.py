"""FedClean: whom the client's own learner and the global model believe, by hand."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learning.alone import Learned
from learning.method import Method, Seen, Visit
from learning.mixup import Mix
from methods import ce
from methods.co_teaching import CoTeaching
from methods.fedclean import CLEAN, DONE, DOUBT, INFERRED, FedClean
from methods.joint_optimization import JointOptimization
from tests.batches_of import Y, Z, batch_of, visit_of

ROUNDS = {1: 1, 2: 51, 3: 151}  # of 250, the first of each stage


@dataclass
class Models:
    """What the client's own learner and the global model answer, (n, C) logits each; counts how often each is asked."""

    own: Tensor
    shared: Tensor
    learners: list[tuple[Method, int]] = field(default_factory=list)
    asked: int = 0

    def learn(self, visit: Visit, method: Method, epochs: int) -> Learned:
        self.learners.append((method, epochs))
        return Learned(self.own, visit.labels, [0.0] * epochs, epochs * len(visit.labels))

    def on_all(self, network: Any) -> Tensor:
        self.asked += 1
        return self.shared


def visit_by(
    method: FedClean, labels: Tensor, models: Models, stage: int = 1, after: Visit | None = None, **values: Any
) -> Visit:
    """One visit of one epoch in the first round of a stage of 250 rounds; `after` an earlier one."""
    anything: Any = models
    state = {} if after is None else {name: value.clone() for name, value in after.state.items()}
    visit = visit_of(
        labels, models.own.shape[1], server_round=ROUNDS[stage], num_rounds=250, networks=[models], inference=anything,
        trainer=anything, state=state, **values,
    )  # fmt: skip
    if after is not None:
        visit.labels = after.labels.clone()
    method.begin(visit)
    visit.epoch = 1
    steps = method.steps(visit)
    visit.scratch["rows"] = sorted(torch.cat([rows for step in steps for rows in step.groups]).tolist())
    method.end(visit)
    return visit


def suspicion_of(visit: Visit) -> Tensor:
    assert visit.suspicion is not None
    return visit.suspicion


def _logits(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def sure(classes: list[int], margins: list[float] | float, count: int = 3) -> Tensor:
    """(n, C) logits: the margin at one class, 0 at the others."""
    values = torch.as_tensor(margins, dtype=torch.float32).expand(len(classes))
    return torch.zeros(len(classes), count).scatter_(1, torch.tensor(classes)[:, None], values[:, None])


def test_what_the_learner_agrees_with_is_clean_by_hand() -> None:
    """CE of label 0 under (2, 0, 0) is log(1 + 2 e^-2) = 0.239545, of label 1 it is 2.239545; uniform: log 3."""
    labels = torch.tensor([0, 1, 1, 2])
    own = _logits([2, 0, 0], [2, 0, 0], [0, 3, 0], [0.1, 0, 0])
    visit = visit_by(FedClean(), labels, Models(own, own))
    assert visit.state[INFERRED].tolist() == [0, 0, 1, 0]
    assert visit.state[CLEAN].tolist() == [True, False, True, False]
    assert visit.scratch["rows"] == [0, 2]
    assert visit.used == 2
    expected = [0.239545, 2.239545, math.log(1 + 2 * math.exp(-3)), math.log(math.exp(0.1) + 2)]
    assert visit.state[DOUBT].tolist() == pytest.approx(expected, abs=1e-6)
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False, True, False, True]
    suspicion = [wrong + loss / (1 + loss) for wrong, loss in zip((0, 1, 0, 1), expected, strict=True)]
    assert suspicion_of(visit).tolist() == pytest.approx(suspicion, abs=1e-6)
    assert suspicion_of(visit).dtype is torch.float32
    assert visit.labels.tolist() == labels.tolist()


def test_the_learner_is_asked_once_and_the_global_model_when_a_stage_begins() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    models = Models(sure([0, 0, 1, 2], 2.0), sure([0, 0, 1, 2], 2.0))
    visit, asked = None, []
    for stage in (1, 1, 2, 2, 3, 3):
        visit = visit_by(FedClean(alone_epochs=7), labels, models, stage, visit)
        asked.append((len(models.learners), models.asked))
        assert visit.state[DONE].tolist() == [stage]
    assert asked == [(1, 0), (1, 0), (1, 1), (1, 1), (1, 2), (1, 2)]
    assert models.learners == [(JointOptimization(prior="given"), 7)]
    models.learners.clear()
    visit_by(FedClean(learner="co-teaching", forget_rate=0.4), labels, models)
    assert models.learners == [(CoTeaching(forget_rate=0.4), 10)]


def _cross_entropies(logits: Tensor, labels: Tensor) -> np.ndarray:
    """In float64, from the definition."""
    z = logits.double().numpy()
    p: np.ndarray = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    found: np.ndarray = -np.log(p[np.arange(len(z)), labels.numpy()])
    return found


# Twenty images with label 0: ten clean, and ten that the learner calls 1. Of these, the global model calls the first
# six 1 as well, with margins 1, 1.2, 0.9, 8, 8.4 and 8.2, and the others 2.
LABELS = torch.zeros(20, dtype=torch.int64)
OWN = sure([0] * 10 + [1] * 10, 5.0)
MARGINS = [3.0] * 10 + [1.0, 1.2, 0.9, 8.0, 8.4, 8.2] + [4.0, 0.1, 0.2, 0.3]
SHARED = sure([0] * 10 + [1] * 6 + [2] * 4, MARGINS)


def test_the_first_relabelling_by_hand() -> None:
    """L_co of an image is the difference of two of its logits: here its margin. Six are too few for a mixture, so all
    are upper, and 0.8 of six are four: those with 8.4, 8.2, 8 and 1.2."""
    first = visit_by(FedClean(), LABELS, Models(OWN, SHARED))
    assert first.scratch["rows"] == list(range(10))
    visit = visit_by(FedClean(), LABELS, Models(OWN, SHARED), 2, first)
    inferred = torch.ones(20, dtype=torch.int64)
    difference = _cross_entropies(SHARED, LABELS) - _cross_entropies(SHARED, inferred)
    assert difference[10:16] == pytest.approx(MARGINS[10:16])
    relabelled = [11, 13, 14, 15]
    assert visit.labels.tolist() == [int(row in relabelled) for row in range(20)]
    assert visit.scratch["rows"] == [*range(10), *relabelled]
    assert visit.used == 14
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [row >= 10 for row in range(20)]  # relabelled ones, and those left out
    assert visit.state[DOUBT].tolist() == pytest.approx(_cross_entropies(SHARED, LABELS).tolist(), rel=1e-5)


def test_the_first_relabelling_by_a_mixture() -> None:
    """Fourteen agree: nine near 1, five near 8. Of the upper five, 0.8 are four, all but the smallest."""
    margins = [0.8, 0.9, 1.0, 1.1, 1.2, 0.85, 0.95, 1.05, 1.15, 8.0, 8.4, 8.2, 7.9, 8.1]
    labels = torch.zeros(16, dtype=torch.int64)
    own, shared = sure([0, 0] + [1] * 14, 5.0), sure([0, 0] + [1] * 14, [3.0, 3.0, *margins])
    first = visit_by(FedClean(), labels, Models(own, shared))
    visit = visit_by(FedClean(), labels, Models(own, shared), 2, first)
    assert visit.scratch["rows"] == [0, 1, 11, 12, 13, 15]
    assert visit.labels.nonzero()[:, 0].tolist() == [11, 12, 13, 15]
    everybody = visit_by(FedClean(relabel_agreed=1.0), labels, Models(own, shared), 2, first)
    assert everybody.scratch["rows"] == [0, 1, 11, 12, 13, 14, 15]
    nobody = visit_by(FedClean(relabel_agreed=0.0), labels, Models(own, shared), 2, first)
    assert nobody.scratch["rows"] == [0, 1]


def _rest() -> tuple[Tensor, Tensor, Tensor]:
    """Sixteen images: two clean; of the rest, about which the models disagree, eight whose label the global model
    finds likely enough (losses near 1.1 and 0.8), and six whose it does not: losses near the margins.

    CE of label 0 with margin m at class 2 of three: log(2 + e^m). max p = e^m / (2 + e^m): 0.9933 at m = 5.7, 0.786 at
    m = 2, and 0.88 at m = 2.7.
    """
    labels = torch.zeros(16, dtype=torch.int64)
    own = sure([0, 0] + [1] * 14, 5.0)
    shared = sure([0, 0] + [2] * 14, [3.0, 3.0] + [0.0, 0.05] * 4 + [5.7, 6.0, 6.2, 5.9, 6.1, 5.8])
    return labels, own, shared


def test_the_second_relabelling_by_hand() -> None:
    """0.8 of the six upper ones are four: those with margins 6.2, 6.1, 6 and 5.9, of all of which the model is sure."""
    labels, own, shared = _rest()
    losses = _cross_entropies(shared, labels)
    assert losses[2:4] == pytest.approx([math.log(3), math.log(2 + math.exp(0.05))])
    assert losses[10] == pytest.approx(math.log(2 + math.exp(5.7)), abs=1e-6)
    second = visit_by(FedClean(), labels, Models(own, shared), 2, visit_by(FedClean(), labels, Models(own, shared)))
    assert second.scratch["rows"] == [0, 1]  # the models agree on nobody
    visit = visit_by(FedClean(), labels, Models(own, shared), 3, second)
    assert visit.scratch["rows"] == [*range(10), 11, 12, 13, 14]
    assert visit.labels.tolist() == [2 if row in (11, 12, 13, 14) else 0 for row in range(16)]
    assert visit.used == 14
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [row >= 10 for row in range(16)]


@pytest.mark.parametrize(("confidence", "relabelled"), [(0.9945, [11, 12, 13, 14]), (0.9952, [12, 14]), (1.0, [])])
def test_only_what_the_global_model_is_sure_of_is_relabelled(confidence: float, relabelled: list[int]) -> None:
    """max p = 1 / (1 + 2 e^-m): 0.99455 at 5.9, 0.99507 at 6, 0.99553 at 6.1 and 0.99596 at 6.2. Who is not among
    the largest does not count: of 5.7 and 5.8 the model is sure enough in the test before."""
    labels, own, shared = _rest()
    likely = 1 / (1 + 2 * np.exp(-np.array([5.9, 6.0, 6.1, 6.2])))
    assert likely == pytest.approx([0.994551, 0.995067, 0.995534, 0.995958], abs=1e-6)
    method = FedClean(confidence=confidence)
    visit = visit_by(method, labels, Models(own, shared), 3, visit_by(method, labels, Models(own, shared)))
    assert visit.labels.nonzero()[:, 0].tolist() == relabelled
    assert visit.scratch["rows"] == [*range(10), *relabelled]


def test_a_client_that_missed_a_stage_takes_both_steps_in_order() -> None:
    """In stage 3 without stage 2, or as its first visit: as if it had come in between with the same model."""
    models = Models(OWN, SHARED)
    first = visit_by(FedClean(), LABELS, models)
    second = visit_by(FedClean(), LABELS, models, 2, first)
    expected = visit_by(FedClean(), LABELS, models, 3, second)
    for visit in (visit_by(FedClean(), LABELS, models, 3, first), visit_by(FedClean(), LABELS, models, 3)):
        for name, value in expected.state.items():
            assert torch.equal(visit.state[name], value), name
        assert torch.equal(visit.labels, expected.labels)
        assert visit.scratch["rows"] == expected.scratch["rows"]


def test_a_judgement_holds_whatever_the_model_says_later() -> None:
    """Each step once: another model, and a longer run that puts the client back into stage 2, change nothing."""
    visit = visit_by(FedClean(), LABELS, Models(OWN, SHARED), 3)
    other = Models(-OWN, -SHARED)
    for stage in (3, 2, 1):
        later = visit_by(FedClean(), LABELS, other, stage, visit)
        assert torch.equal(later.labels, visit.labels)
        assert all(torch.equal(later.state[name], value) for name, value in visit.state.items())
    assert (other.asked, other.learners) == (0, [])


def test_stages_as_in_the_paper_and_in_short_runs() -> None:
    found = [FedClean().stage_at(server_round, 250) for server_round in (1, 50, 51, 150, 151, 250)]
    assert found == [1, 1, 2, 2, 3, 3]
    assert [FedClean().stage_at(number, 14) for number in range(1, 15)] == [1] * 3 + [2] * 6 + [3] * 5
    assert [FedClean().stage_at(number, 3) for number in (1, 2, 3)] == [1, 2, 3]
    assert FedClean().stage_at(1, 1) == 1
    in_rounds = FedClean(first_stage_rounds=2, second_stage_rounds=0)
    assert [in_rounds.stage_at(number, 9) for number in (2, 3)] == [1, 3]
    assert [FedClean(first_stage=1.0).stage_at(number, 5) for number in (1, 5)] == [1, 1]
    assert FedClean(first_stage=1.0, first_stage_rounds=3).stage_at(4, 10) == 2


def test_mixed_images_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of each image and one of the other: ``-sum_c q_c log p_c`` with q = 3/4 own + 1/4 partner's."""
    monkeypatch.setattr(ce, "draw_mix", lambda *_: Mix(torch.tensor(0.75), torch.tensor([1, 0])))
    visit = visit_of(Y)
    inputs = torch.tensor([0.0, 8.0])[:, None, None, None].expand(2, 3, 1, 1)
    (mixed,) = FedClean().mix(Seen(torch.arange(2), Y, (2,), 0, [inputs]), visit)
    assert mixed[:, 0, 0, 0].tolist() == [2.0, 6.0]
    z = Z.numpy()
    logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    q = np.array([[0.75, 0, 0.25], [0.25, 0, 0.75]])
    logits = Z.clone().requires_grad_()
    loss = FedClean().loss(batch_of(Y, logits), visit)
    assert loss.item() == pytest.approx(float(-(q * logs).sum() / 2), abs=1e-6)
    loss.backward()
    torch.testing.assert_close(logits.grad, (Z.softmax(dim=1) - torch.from_numpy(q)) / 2, rtol=0, atol=1e-7)
    assert FedClean().mixes
    assert not FedClean(mixup=0.0).mixes


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"learner": "elr"}, "learner must be one of joint-optimization, co-teaching"),
        ({"alone_epochs": 0}, "alone-epochs must be a whole number of at least 1"),
        ({"prior": "own"}, "prior must be one of uniform, given"),
        ({"forget_rate": 1.0}, "forget-rate must be a number at least 0 and below 1"),
        ({"first_stage": 0.0}, "first-stage must be a number above 0 and at most 1"),
        ({"first_stage_rounds": 0}, "first-stage-rounds must be a whole number from 1"),
        ({"second_stage": 1.5}, "second-stage must be a number at least 0 and at most 1"),
        ({"second_stage_rounds": -2}, "second-stage-rounds must be a whole number from 0"),
        ({"relabel_agreed": 1.1}, "relabel-agreed must be a number at least 0 and at most 1"),
        ({"relabel_confident": -0.1}, "relabel-confident must be a number at least 0 and at most 1"),
        ({"confidence": 2.0}, "confidence must be a number at least 0 and at most 1"),
        ({"mixup": -1.0}, "mixup must be a number at least 0"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FedClean(**values)
