"""FedDiv in whole visits: clients of any size, one image left, and what a visit sends."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config.run_config import RunConfig
from learning.training import train_locally
from methods import feddiv
from methods.feddiv import FedDiv
from methods.federated_mixture import DEVIATIONS, MEANS, MIXTURE, WEIGHTS
from methods.two_stages import NOISY
from task import Compute, build_model, derived_generator

CPU = Compute(torch.device("cpu"), torch.float32)
SIX = {MEANS, DEVIATIONS, WEIGHTS}


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
