"""DivideMix in whole visits and runs: clients of any size, one labelled image, what the server hears."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config.run_config import RunConfig
from learning.training import train_locally
from methods import dividemix
from methods.dividemix import DivideMix
from task import Compute, build_model, derived_generator
from tests.fakes import rounds_of, run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)


def _visit(method: DivideMix, count: int = 24, model: str = "cnn", **changes: Any) -> tuple[Any, Any]:
    values = {"model": model, "image_size": 32, "batch_size": 6, "local_epochs": 2, "learning_rate": 0.05}
    config = RunConfig(**{**values, **changes})
    images = torch.randint(256, (count, 32, 32, 3), generator=derived_generator(1, "x"), dtype=torch.uint8)
    trained = build_model(model, 5, seed=3, networks=2)
    labels = torch.arange(count) % 4
    report = train_locally(trained, images, labels, method, config, CPU, derived_generator(1, "t"))
    return report, trained


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("lambda_u", [0.0, 25.0])
def test_a_visit_trains_both_networks_and_can_be_repeated(lambda_u: float, strong: bool) -> None:
    method = DivideMix(warm_up_rounds=0, ramp_rounds=0, lambda_u=lambda_u, strong=strong)
    report, model = _visit(method)
    again, same = _visit(method)
    assert again.epoch_losses == report.epoch_losses
    fresh = build_model("cnn", 5, seed=3, networks=2).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    for network in (0, 1):
        assert not torch.equal(
            model.state_dict()[f"networks.{network}.fc.weight"], fresh[f"networks.{network}.fc.weight"]
        )
    assert report.visit.suspected.shape == (24,)
    assert 0 < report.images_seen <= 24 * 2 * DivideMix.passes


@pytest.mark.parametrize("labelled", [1, 24])
def test_one_labelled_image_and_none_unlabelled_train_with_batchnorm(
    monkeypatch: pytest.MonkeyPatch, labelled: int
) -> None:
    """A ResNet leaves one pixel of 32 x 32, of which BatchNorm needs two images; two views are two."""
    monkeypatch.setattr(dividemix, "clean", lambda losses, threshold: (np.arange(len(losses)) < labelled).astype(float))
    report, model = _visit(DivideMix(warm_up_rounds=0), model="resnet18", local_epochs=1, drop_last=False)
    assert report.images_seen == (4 if labelled == 1 else 48)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert report.visit.suspected.sum() == 24 - labelled


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5))
def test_clients_of_any_size_train(count: int, batch_size: int) -> None:
    report, _ = _visit(DivideMix(warm_up_rounds=0), count=count, batch_size=batch_size, drop_last=False, local_epochs=1)
    assert all(np.isfinite(report.epoch_losses))
    assert report.visit.suspicion.shape == (count,)
    if count < 10:
        assert not report.visit.suspected.any()
        assert not report.visit.suspicion.any()  # all alike
        assert report.images_seen == 2 * count


def test_the_server_hears_how_many_images_counted(tmp_path: Path, tiny_sample: Path) -> None:
    found = {}
    for weight in ("held", "used"):
        run_dir = run_in_process(
            tmp_path / weight, data_dir=str(tiny_sample), model="cnn", image_size=16, fraction_train=1.0,
            method="dividemix", num_server_rounds=2, val_split="none",
            method_args=f"warm-up-rounds=1 weigh-by='{weight}'", drop_last=False,
        )  # fmt: skip
        found[weight] = [line["num-examples"] for line in rounds_of(run_dir)]
        assert all(line["failed-partitions"] == [] for line in rounds_of(run_dir))
    assert found["held"] == [120, 120]
    assert found["used"][0] == 120  # in warm-up
    assert 0 < found["used"][1] < 120


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"warm_up": 1.1}, "warm-up must be a number at least 0 and at most 1"),
        ({"threshold": 1.0}, "threshold must be a number at least 0 and below 1"),
        ({"temperature": 0.0}, "temperature must be a number above 0"),
        ({"alpha": 0}, "alpha must be a number above 0"),
        ({"lambda_u": -1.0}, "lambda-u must be a number at least 0"),
        ({"ramp_rounds": -2}, "ramp-rounds must be a whole number from 0"),
        ({"prior": "own"}, "prior must be one of uniform, given"),
        ({"strong": 1}, "strong must be true or false"),
        ({"weigh_by": "some"}, "weigh-by must be one of held, used"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DivideMix(**values)
