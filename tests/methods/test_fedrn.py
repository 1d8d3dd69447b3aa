"""FedRN: scores and the mean of what models say by hand, classifiers that are tuned, and which images are learned."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.frozen_features import heads_of
from learning.images import Features, Images
from learning.inference import Inference
from learning.method import Visit
from learning.network import NetworkSpec, build
from learning.optimizer import LocalSGD
from learning.shared_state import shared_state
from learning.training import TrainingReport, train_locally
from methods.fedrn import LOSSES, FedRN
from methods.fedrn_on_server import EXPERTISE, LARGEST_LOGIT, PROBE, SCORES, SEED
from methods.neighbours import (
    above,
    best,
    clean_probabilities,
    cosines,
    min_max,
    probe_output,
    scores_for,
    tune,
    weighted,
)
from task import Compute, build_model, classifier, derived_generator, to_input
from tests.batches_of import Y, Z, batch_of, visit_of

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (30, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(30) % 5
# Twenty small losses and ten large ones.
APART = torch.cat([torch.linspace(0.0, 0.2, 20), torch.linspace(2.8, 3.0, 10)])


def _model(name: str = "cnn", seed: int = 1) -> nn.Module:
    return build_model(name, 5, seed=seed)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in shared_state(model).items()}


def _visit(
    method: FedRN, images: Tensor = IMAGES, labels: Tensor = LABELS, model: nn.Module | None = None, **values: Any
) -> TrainingReport:
    settings: dict[str, Any] = {"server_round": 9, **values}
    config = RunConfig(
        image_size=16, batch_size=settings.pop("batch_size", 8), num_server_rounds=10, learning_rate=0.05,
        drop_last=False, local_epochs=1, momentum=0.9, weight_decay=5e-4,
    )  # fmt: skip
    return train_locally(model or _model(), images, labels, method, config, CPU, derived_generator(1, "t"), **settings)


# Who is whose neighbour.


def test_scores_by_hand() -> None:
    """With alpha = .6: e = [.6, .9, .75, .8] is [0, 1, .5, 2/3], and cosines [1, .2, .8, .5] are [1, 0, .75, .375]."""
    cosine = np.array([1, 0.2, 0.8, 0.5])
    probes = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)  # of length 1, and the first is (1, 0)
    scores = scores_for(0, np.array([0.6, 0.9, 0.75, 0.8]), probes, 0.6)
    assert scores.tolist() == pytest.approx([0.4, 0.6, 0.6, 0.55])
    assert best(scores, 0, 1) == [1]  # clients 1 and 2 are equal
    assert best(scores, 0, 2) == [1, 2]
    assert best(scores, 0, 9) == [1, 2, 3]
    assert best(scores, 1, 1) == [2]


def test_scores_of_another_client_by_hand() -> None:
    """Client 2 sees itself as most similar, although client 0's output is 100 times as long.

    o = (0, 3), (4, 3), (300, 400) / 4: cosines with the third, (.6, .8), are .8, .48 + .48 = .96 and 1. Scaled they are
    0, .8 and 1; e = (.5, .5, .3) are 1, 1, 0. With alpha = .25: .25, .25 + .75 * .8 = .85, and .75.
    """
    probes = np.array([[0, 3], [4, 3], [75, 100]], dtype=np.float64)
    assert cosines(probes, probes[2]).tolist() == pytest.approx([0.8, 0.96, 1])
    assert scores_for(2, np.array([0.5, 0.5, 0.3]), probes, 0.25).tolist() == pytest.approx([0.25, 0.85, 0.75])


def test_equal_expertises_and_outputs_count_fully_and_no_output_is_like_nobody() -> None:
    assert min_max(np.full(3, 0.7)).tolist() == [1, 1, 1]
    assert scores_for(1, np.full(3, 0.7), np.ones((3, 4)), 0.6).tolist() == pytest.approx([1, 1, 1])
    silent = np.array([[0.0, 0], [1, 1], [0, 0]])
    assert cosines(silent, silent[0]).tolist() == [0, 0, 0]
    assert scores_for(0, np.array([1.0, 1, 1]), silent, 0.0).tolist() == [1, 0, 0]
    assert scores_for(0, np.array([0.5]), np.zeros((1, 2)), 0.6).tolist() == [1]
    assert best(np.array([1.0]), 0, 1) == []


REPORTED = st.lists(
    st.tuples(st.floats(0, 1), st.lists(st.floats(-LARGEST_LOGIT, LARGEST_LOGIT), min_size=3, max_size=3)),
    min_size=1, max_size=6,
)  # fmt: skip


@given(REPORTED, st.floats(0, 1), st.integers(0, 5), st.integers(1, 4))
def test_whatever_clients_report_scores_are_shares_that_add_up_to_something(
    reported: list[tuple[float, list[float]]], alpha: float, own: int, count: int
) -> None:
    own %= len(reported)
    scores = scores_for(own, np.array([e for e, _ in reported]), np.array([o for _, o in reported]), alpha)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-12).all()
    found = best(scores, own, count)
    assert len(found) == len(set(found)) == min(count, len(reported) - 1)
    assert scores[[own, *found]].sum() > 0 or alpha == 1  # then nobody need judge: everybody is learned from


# What models say.


def test_what_own_and_neighbours_models_say_by_hand() -> None:
    """Weights .4 and .6 of the example: .4 * .9 + .6 * .2 = .48, .4 * .1 + .6 * .8 = .52, and .5 is not above .5."""
    own, other = np.array([0.9, 0.1, 0.5]), np.array([0.2, 0.8, 0.5])
    mean = weighted([0.4, 0.6], [own, other])
    assert mean is not None
    assert mean.tolist() == pytest.approx([0.48, 0.52, 0.5])
    assert above(mean, 0.49).tolist() == [False, True, True]
    assert above(mean, 0.5).tolist() == [True, True, True]  # a single one cannot be learned alone
    assert above(np.array([0.6, 0.7, 0.5]), 0.5).tolist() == [True, True, False]
    assert above(np.array([0.1]), 0.5).tolist() == [True]


def test_models_that_say_nothing_have_no_weight() -> None:
    one = np.array([0.25, 0.75])
    found = weighted([0.4, 0.6, 0.1], [one, None, one])
    assert found is not None
    assert found.tolist() == pytest.approx(one.tolist())
    assert weighted([0.4], [None]) is None
    assert weighted([0.0, 0.5], [one, None]) is None


def test_probabilities_of_small_losses() -> None:
    found = clean_probabilities(APART.double().numpy())
    assert found is not None
    assert (found[:20] > 0.99).all()
    assert (found[20:] < 0.01).all()
    for equal in (np.full(30, 0.7), np.zeros(12), np.arange(9.0)):  # or too few to fit two Gaussians
        said = clean_probabilities(equal)
        assert said is not None
        assert said.tolist() == [1] * len(equal)
    for broken in (np.nan, np.inf):
        assert clean_probabilities(np.array([0.1] * 20 + [broken])) is None


@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=40))
def test_probabilities_are_some_whatever_the_losses(losses: list[float]) -> None:
    found = clean_probabilities(np.array(losses))
    assert found is not None
    assert ((found >= 0) & (found <= 1)).all()


def test_a_classifier_is_tuned_by_the_runs_optimiser_in_one_epoch_by_hand() -> None:
    """Features (1, 0) and (0, 1) of classes 0 and 1, no bias, all weights 0: softmax is 1/2 everywhere.

    The gradient of the mean loss by weight (class c, feature f) is the mean over the images of (p_c - [c = y]) x_f:
    -1/4 where class and feature belong together, 1/4 elsewhere. At rate .4 the weights become .1 and -.1. Image 2 is
    not among the rows.
    """
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()

    def optimizer(module: nn.Module) -> LocalSGD:
        made = LocalSGD(module)
        made.begin(0.4, 0.0, 0.0)
        return made

    features, labels = torch.tensor([[1.0, 0], [0, 1], [9, 9]]), torch.tensor([0, 1, 0])
    tune(layer, features, labels, torch.tensor([0, 1]), visit_of(labels, 2, optimizer=optimizer))
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.1, -0.1], [-0.1, 0.1]]))
    assert not layer.weight.requires_grad


# Visits.


def test_the_loss_is_cross_entropy() -> None:
    assert FedRN().loss(batch_of(Y, Z), visit_of(Y)).item() == pytest.approx(cross_entropy(Z, Y).item())


@pytest.mark.parametrize(("args", "rounds"), [({}, 8), ({"warm_up": 0.0}, 0), ({"warm_up_rounds": 3}, 3)])
def test_warm_up(args: Mapping[str, Any], rounds: int) -> None:
    assert FedRN(**args).warm_up_of(40) == rounds


def test_a_visit_without_scores_learns_from_all_and_reports_what_the_trained_model_does() -> None:
    """Computed once more here, from the trained model: it is in evaluation mode, and so is its answer to the noise."""
    model = _model()
    report = _visit(FedRN(), model=model, told={SEED: 77})
    visit = report.visit
    assert report.images_seen == 30
    assert visit.suspected is None
    model.eval()
    logits = visit.predict()
    noise = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(77))
    with torch.no_grad():
        probe = model(noise)[0]
    assert visit.metrics[EXPERTISE] == pytest.approx((logits.argmax(dim=1) == LABELS).double().mean().item())
    assert visit.metrics[PROBE] == pytest.approx(probe.tolist())
    torch.testing.assert_close(visit.state[LOSSES], cross_entropy(logits, LABELS, reduction="none"))
    rules = FedRN().reports({}, 5)
    assert rules.keys() == visit.metrics.keys()
    assert all(rule.problem(visit.metrics[name]) is None for name, rule in rules.items())
    assert rules[EXPERTISE].problem(1.01) is not None
    assert rules[PROBE].problem([0.0] * 4) is not None
    assert rules[PROBE].problem([0.0] * 4 + [math.inf]) is not None


def test_all_clients_answer_to_the_same_noise() -> None:
    """Whatever they hold, and whatever their generators have drawn."""
    answers = [
        _visit(FedRN(), IMAGES[:n], LABELS[:n], model=_model(), told={SEED: 5}, batch_size=n).visit.metrics[PROBE]
        for n in (4, 30)
    ]
    fresh = _model().eval()
    assert answers[0] != answers[1]  # they have learned different things
    visits = [visit_of(LABELS[:n], 5, networks=[fresh]) for n in (4, 30)]
    for visit, n in zip(visits, (4, 30), strict=True):
        visit.inference = Inference(Images(IMAGES[:n], CPU.device), 16, CPU, "imagenet")
        visit.generator.manual_seed(n)
    assert torch.equal(probe_output(visits[0], 5), probe_output(visits[1], 5))
    assert not torch.equal(probe_output(visits[0], 5), probe_output(visits[1], 6))


def test_an_own_model_alone_chooses_images_with_small_losses() -> None:
    report = _visit(FedRN(weigh_by="used"), told={SCORES: [0.4]}, state={LOSSES: APART})
    visit = report.visit
    assert report.images_seen == visit.used == 20
    assert visit.suspected is not None
    assert visit.suspected.tolist() == [False] * 20 + [True] * 10
    suspicion = visit.suspicion
    assert suspicion.dtype is torch.float32
    assert (suspicion[:20] < 0.5).all()
    assert (suspicion[20:] > 0.5).all()
    assert _visit(FedRN(), told={SCORES: [0.4]}, state={LOSSES: APART}).visit.used is None


def _neighbours_say(model: nn.Module, other: Mapping[str, Tensor], rows: Tensor, order: Tensor) -> Tensor:
    """(n,) losses of a neighbour, step by step, with PyTorch's own optimiser and the same batches."""
    model.load_state_dict(dict(other))
    model.eval()
    layer = classifier(model)
    found: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    with torch.no_grad():
        model(to_input(IMAGES, CPU, "imagenet"))
    handle.remove()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for part in order.split(8):
        optimizer.zero_grad()
        cross_entropy(layer(found[0][rows[part]]), LABELS[rows[part]]).backward()
        optimizer.step()
    with torch.no_grad():
        return cross_entropy(layer(found[0]), LABELS, reduction="none")


def test_a_neighbour_is_tuned_on_the_images_with_small_losses_and_judges_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are those of a second implementation, and the mean of both models is what decides."""
    other, said = _state(_model(seed=2)), []

    def watched(losses: np.ndarray) -> Any:
        said.append(losses)
        return clean_probabilities(losses)

    monkeypatch.setattr("methods.fedrn.clean_probabilities", watched)
    report = _visit(FedRN(), told={SCORES: [0.4, 0.6]}, state={LOSSES: APART}, models={"1": other})
    visit = report.visit
    # The visit's generator drew this order first.
    order = torch.randperm(20, generator=derived_generator(1, "t"))
    expected = _neighbours_say(_model(), other, torch.arange(20), order)
    own, losses = said
    np.testing.assert_array_equal(own, APART.double().numpy())
    np.testing.assert_allclose(losses, expected.double().numpy(), rtol=1e-4)
    first, second = clean_probabilities(own), clean_probabilities(losses)
    assert first is not None
    assert second is not None
    mean = 0.4 * first + 0.6 * second
    np.testing.assert_allclose(visit.suspicion.numpy(), 1 - mean, atol=1e-6)
    assert visit.suspected is not None
    assert visit.suspected.tolist() == (mean <= 0.5).tolist()
    assert report.images_seen == int((mean > 0.5).sum())


def test_judging_changes_neither_the_network_nor_the_neighbours_model() -> None:
    model, other = _model(), _state(_model(seed=2))
    before, kept = _state(model), {name: value.clone() for name, value in other.items()}
    seen = {}

    class Stops(FedRN):
        def steps(self, visit: Visit) -> Any:
            seen.update(_state(visit.networks[0]))
            return super().steps(visit)

    _visit(Stops(), model=model, told={SCORES: [0.4, 0.6]}, state={LOSSES: APART}, models={"1": other})
    assert all(torch.equal(value, before[name]) for name, value in seen.items())
    assert all(torch.equal(value, kept[name]) for name, value in other.items())


def test_a_client_that_has_lost_its_losses_learns_from_all() -> None:
    report = _visit(FedRN(), told={SCORES: [0.4, 0.6]}, models={"1": _state(_model(seed=2))})
    assert report.images_seen == 30
    assert report.visit.suspected is None


@pytest.mark.parametrize("losses", [torch.full((30,), math.nan), torch.full((30,), math.inf)])
def test_losses_of_a_model_that_had_diverged_judge_nobody(losses: Tensor) -> None:
    assert _visit(FedRN(), told={SCORES: [1.0]}, state={LOSSES: losses}).images_seen == 30


def test_a_neighbour_that_answers_nonsense_is_not_asked() -> None:
    """A hostile client's model, for instance: finite, and its losses are not."""
    huge = {
        name: value * 1e30 if value.is_floating_point() else value for name, value in _state(_model(seed=2)).items()
    }
    alone = _visit(FedRN(), told={SCORES: [0.4]}, state={LOSSES: APART}).visit
    visit = _visit(FedRN(), told={SCORES: [0.4, 0.6]}, state={LOSSES: APART}, models={"1": huge}).visit
    assert torch.equal(visit.suspicion, alone.suspicion)


@pytest.mark.parametrize("count", range(1, 11))
def test_clients_with_few_images(count: int) -> None:
    """BatchNorm refuses a batch of one at this size, but for a client that has no more."""
    model = build_model("cnn", 5, seed=1)
    other = {"1": _state(_model(seed=2))}
    losses = torch.linspace(0, 3, count)
    report = _visit(
        FedRN(), IMAGES[:count], LABELS[:count], model, told={SCORES: [0.5, 0.5]}, state={LOSSES: losses}, models=other
    )
    assert report.images_seen in range(min(2, count), count + 1)


@pytest.mark.parametrize("labels", [torch.zeros(30, dtype=torch.int64), torch.full((30,), 4)])
def test_a_client_of_one_class(labels: Tensor) -> None:
    other = {"1": _state(_model(seed=2))}
    report = _visit(FedRN(), labels=labels, told={SCORES: [0.5, 0.5]}, state={LOSSES: APART}, models=other)
    assert 2 <= report.images_seen <= 30


def test_equal_losses_leave_the_judgement_to_the_neighbours() -> None:
    other = {"1": _state(_model(seed=2)), "2": _state(_model(seed=3))}
    visit = _visit(FedRN(), told={SCORES: [0.1, 0.9, 0.9]}, state={LOSSES: torch.ones(30)}, models=other).visit
    assert (visit.suspicion > 0.05).any()
    assert (visit.suspicion <= 1 - 0.1 / 1.9 + 1e-6).all()


def test_no_step_of_a_single_image() -> None:
    """Nineteen images in batches of six: three of six, and the last joins the third."""
    method, visit = FedRN(), visit_of(torch.zeros(30, dtype=torch.int64), batch_size=6)
    method.begin(visit)
    visit.scratch["chosen"] = torch.arange(19)
    sizes = [len(step.groups[0]) for step in method.steps(visit)]
    assert sizes == [6, 6, 7]
    visit.batch_size = 1
    assert [len(step.groups[0]) for step in method.steps(visit)] == [1] * 19


@pytest.mark.parametrize("trainable", ["head", "lora"])
def test_neighbours_of_networks_that_are_mostly_frozen(trainable: str) -> None:
    """What travels is the last layer, and adapters."""
    config = RunConfig(model="cnn", image_size=16, trainable=trainable)
    models = [build(NetworkSpec.of(config, FedRN(), 5)) for _ in range(2)]
    with torch.no_grad():
        for value in shared_state(models[1]).values():
            value.add_(0.01)
    told = {SCORES: [0.4, 0.6], SEED: 3}
    visit = _visit(FedRN(), model=models[0], told=told, state={LOSSES: APART}, models={"1": _state(models[1])}).visit
    assert visit.suspected is not None
    if trainable == "head":  # on features, the noise is a vector of them
        features = torch.rand(30, classifier(models[0]).in_features, generator=torch.Generator().manual_seed(1))
        body, head = heads_of(models[0]), _state(heads_of(models[1]))
        report = _visit(
            FedRN(),
            Features(features, CPU.device),
            model=body,
            told=told,
            state={LOSSES: APART},
            models={"1": head},  # type: ignore[arg-type]
        )
        assert report.visit.suspected is not None
        noise = torch.randn((1, features.shape[1]), generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            assert report.visit.metrics[PROBE] == pytest.approx(body(noise)[0].tolist())


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"alpha": 1.1}, "alpha must be a number at least 0 and at most 1"),
        ({"neighbours": 0}, "neighbours must be a whole number of at least 1"),
        ({"threshold": 1.0}, "threshold must be a number at least 0 and below 1"),
        ({"weigh_by": "all"}, "weigh-by must be one of held, used"),
    ],
)
def test_bad_parameters(args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FedRN(**args)
