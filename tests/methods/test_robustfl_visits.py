"""RobustFL in whole visits to a client: what it sends, how often it looks at its images, and odd clients."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.inference import Inference
from learning.training import TrainingReport, train_locally
from methods import METHODS
from methods.centroids import CENTROIDS, KNOWN, LARGEST_FEATURE
from methods.robustfl import RobustFL
from task import Compute, build_model, derived_generator
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)


def _data(labels: list[int]) -> tuple[Tensor, Tensor]:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    return torch.from_numpy(images), torch.tensor(labels)


LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 3, 0, 1]  # one image of class 3, none of class 4


def _visit(
    labels: list[int] = LABELS, server_round: int = 9, method: RobustFL | None = None, **values: Any
) -> tuple[Any, TrainingReport]:
    changes = values.pop("changes", {})
    config = RunConfig(
        model="cnn", image_size=16, batch_size=6, local_epochs=2, learning_rate=0.05, num_server_rounds=36, **changes
    )
    model: Any = build_model("cnn", 5, seed=1)
    generator = derived_generator(1, "t", server_round)
    report = train_locally(
        model, *_data(labels), method or RobustFL(), config, CPU, generator, server_round=server_round, **values
    )
    return model, report


def _from_server(width: int, known: list[float]) -> dict[str, Tensor]:
    centroids = torch.rand(5, width, generator=torch.Generator().manual_seed(3))
    return {CENTROIDS: centroids * torch.tensor(known)[:, None], KNOWN: torch.tensor(known)}


def test_a_client_sends_the_centroids_of_classes_of_which_it_holds_two_images() -> None:
    model, report = _visit()
    visit, width = report.visit, model.fc.in_features
    assert visit.sends[KNOWN].tolist() == [1, 1, 1, 0, 0]
    assert (visit.sends[CENTROIDS][3:] == 0).all()
    assert (visit.sends[CENTROIDS][:3].norm(dim=1) > 0).all()
    rules = RobustFL().sends({}, 5, width)
    assert rules.keys() == visit.sends.keys()
    assert all(rule.problem(visit.sends[name].numpy()) is None for name, rule in rules.items())
    assert visit.state == {}
    assert visit.suspected is not None
    assert visit.suspected.any()
    assert not visit.suspected.all()


def test_a_client_sends_what_has_become_of_the_servers_centroids() -> None:
    received = _from_server(64, [1, 1, 1, 1, 1])
    model, report = _visit(received=received)
    assert model.fc.in_features == 64
    sent = report.visit.sends[CENTROIDS]
    assert not torch.isclose(sent[:3], received[CENTROIDS][:3]).all(dim=1).any()
    assert torch.equal(received[CENTROIDS], _from_server(64, [1, 1, 1, 1, 1])[CENTROIDS])  # not written into


@pytest.mark.parametrize(
    ("server_round", "known", "passes"),
    [
        (1, None, {}),
        (7, [1, 1, 1, 1, 0], {}),
        (8, [1, 1, 0, 1, 1], {"on_all": 1}),  # T_pl is 7 of 36 rounds
    ],
)
def test_how_often_a_client_looks_at_all_its_images(
    monkeypatch: pytest.MonkeyPatch, server_round: int, known: list[float] | None, passes: dict[str, int]
) -> None:
    asked = Counter[str]()
    real = {name: getattr(Inference, name) for name in ("on_all", "features_of_all")}
    for name in real:

        def counted(self: Inference, network: Any, name: str = name) -> Any:
            asked[name] += 1
            return real[name](self, network)

        monkeypatch.setattr(Inference, name, counted)
    _visit(server_round=server_round, received=None if known is None else _from_server(64, known))
    assert asked == passes


def test_the_centre_loss_changes_what_is_learned() -> None:
    """In published code it does not."""
    received = _from_server(64, [1, 1, 1, 1, 1])
    models = [_visit(method=RobustFL(centre=weight), received=received)[0] for weight in (0.0, 2.0)]
    assert not torch.equal(models[0].conv1.weight, models[1].conv1.weight)


@pytest.mark.parametrize("labels", [[0], [0, 0], [3, 1], [2] * 10, [0, 1, 2, 3, 4], [4] * 6 + [1]])
@pytest.mark.parametrize("known", [None, [1, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
def test_clients_of_few_images_or_one_class(labels: list[int], known: list[float] | None) -> None:
    for server_round in (1, 20):
        received = None if known is None else _from_server(64, known)
        _, report = _visit(labels, server_round, received=received)
        assert all(math.isfinite(loss) for loss in report.epoch_losses)
        sent = report.visit.sends[KNOWN].tolist()
        assert all(labels.count(c) >= 2 for c in range(5) if sent[c])  # what one step saw two images of
        assert report.visit.sends[CENTROIDS].isfinite().all()


def test_images_that_no_step_saw_are_not_suspected() -> None:
    _, report = _visit(changes={"drop_last": True}, method=RobustFL(warm_up_rounds=0, forget_rate=0.9))
    visit = report.visit  # two batches of six in each epoch, of which one image is kept
    assert visit.suspected is not None
    assert visit.suspicion is not None
    assert (visit.suspicion[visit.suspected] > 0).all()
    assert visit.suspected.sum() >= 9


def test_a_visit_waits_for_the_device_once_an_epoch() -> None:
    for known in (None, [1.0, 1.0, 1.0, 1.0, 0.0]):
        received = None if known is None else _from_server(64, known)
        with CountedOperations() as operations:
            _visit(received=received)
        assert operations.counts["aten::_local_scalar_dense"] == 2


def test_half_precision_features_do_not_reach_the_centroids() -> None:
    """Which are float32, as what goes into the classifier is collected."""
    config = RunConfig(model="cnn", image_size=16, batch_size=6)
    model = build_model("cnn", 5, seed=1)
    compute = Compute(torch.device("cpu"), torch.bfloat16)
    report = train_locally(model, *_data(LABELS), RobustFL(), config, compute, derived_generator(1, "t"))
    assert report.visit.sends[CENTROIDS].dtype is torch.float32


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("centre=-1", "centre must be a number at least 0"),
        ("entropy=nan", "entropy must be a number at least 0"),
        ("forget-rate=1", "forget-rate must be a number at least 0 and below 1"),
        ("distance='median'", "distance must be one of mean, sum"),
        ("pseudo-start=1.5", "pseudo-start must be a number at least 0 and at most 1"),
        ("pseudo-start-rounds=-2", "pseudo-start-rounds must be a whole number from 0 .* share that pseudo-start"),
    ],
)
def test_bad_parameters_are_refused(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_named("method", METHODS, "robustfl", args)


@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_no_centroid_that_the_server_lets_pass_ends_a_clients_training(distance: str) -> None:
    """As from a server that has heard a single client, whose lengths are then the median as well."""
    received = {name: value.clone() for name, value in _from_server(64, [1, 1, 1, 1, 1]).items()}
    received[CENTROIDS] = torch.full_like(received[CENTROIDS], LARGEST_FEATURE)
    _, report = _visit(method=RobustFL(distance=distance), received=received)
    assert max(report.epoch_losses) < 1e4
    assert report.visit.sends[CENTROIDS].abs().max() < 1e3
