"""FedRN's visits: which images are learned, what neighbours say of them, and what is reported of the trained model."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.frozen_features import heads_of
from learning.images import Features, Images
from learning.inference import Inference
from learning.method import Visit
from learning.network import NetworkSpec, build
from learning.shared_state import shared_state
from learning.training import TrainingReport, train_locally
from methods.fedrn import LOSSES, FedRN
from methods.fedrn_on_server import EXPERTISE, PROBE, SCORES, SEED
from methods.neighbours import (
    clean_probabilities,
    probe_output,
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


def _suspicion(visit: Visit) -> Tensor:
    found: Tensor = vars(visit)["suspicion"]
    return found


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in shared_state(model).items()}


def _visit(
    method: FedRN, images: Any = IMAGES, labels: Tensor = LABELS, model: nn.Module | None = None, **values: Any
) -> TrainingReport:
    settings: dict[str, Any] = {"server_round": 9, **values}
    config = RunConfig(
        image_size=16, batch_size=settings.pop("batch_size", 8), num_server_rounds=10, learning_rate=0.05,
        drop_last=False, local_epochs=1, momentum=0.9, weight_decay=5e-4,
    )  # fmt: skip
    return train_locally(model or _model(), images, labels, method, config, CPU, derived_generator(1, "t"), **settings)


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
    suspicion = _suspicion(visit)
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
    np.testing.assert_allclose(_suspicion(visit).numpy(), np.asarray(1 - mean), atol=1e-6)
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
    assert torch.equal(_suspicion(visit), _suspicion(alone))


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
    assert (_suspicion(visit) > 0.05).any()
    assert (_suspicion(visit) <= 1 - 0.1 / 1.9 + 1e-6).all()


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
            models={"1": head},
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
