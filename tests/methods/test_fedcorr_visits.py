"""FedCorr in whole visits to a client, the lengths of its stages, and values that are refused."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.run_config import ConfigError, RunConfig
from learning.method import Told
from learning.training import train_locally
from methods.dimension import local_dimensions
from methods.fedcorr import FedCorr, distance
from task import Compute, build_model, derived_generator
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)
CLASSES = 3


def _told(stage: int = 1, noisy: bool = True, delta: float = 0.0, judgements: int = 1) -> dict[str, Told]:
    return {"stage": stage, "noisy": noisy, "delta": delta, "judgements": judgements}


def _train(told: dict[str, Told], state: dict[str, Tensor] | None = None, **values: Any) -> Any:
    images = torch.randint(256, (24, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = RunConfig(model="cnn", image_size=16, batch_size=4, local_epochs=3, num_server_rounds=10, **values)
    model = build_model("cnn", 5, seed=1)
    labels = torch.arange(24) % 5
    generator = derived_generator(1, "t")
    return train_locally(
        model, images, labels, FedCorr(), config, CPU, generator, told=told, state=state, server_round=3
    ), model  # fmt: skip


def test_a_noisy_clients_visit_waits_for_the_device_once_an_epoch() -> None:
    """And once before, to see whether it has relabelled."""
    first, _ = _train({})
    with CountedOperations() as operations:
        _train(_told(delta=0.5), first.visit.state)
    assert operations.counts["aten::_local_scalar_dense"] == 3 + 1  # 18 steps


def test_what_is_reported_is_of_the_trained_model_in_evaluation_mode() -> None:
    report, _ = _train({})
    visit = report.visit
    logits = visit.predict().double()
    losses = cross_entropy(logits, visit.labels, reduction="none")
    torch.testing.assert_close(visit.state["losses"].double(), losses, rtol=1e-5, atol=1e-6)
    expected = local_dimensions(logits.softmax(dim=1), 20).mean().item()
    assert visit.metrics["lid"] == pytest.approx(expected, rel=1e-6)


def test_the_pull_keeps_noisy_clients_near_the_received_weights() -> None:
    start = build_model("cnn", 5, seed=1)
    first, _ = _train({})
    moved = []
    for delta in (0.0, 1.0):
        _, model = _train(_told(delta=delta), first.visit.state)
        moved.append(distance(list(model.parameters()), list(start.parameters())).item())
    assert moved[1] < moved[0]


def test_equal_visits_end_equal_and_mixup_draws_from_the_visits_generator() -> None:
    (one, _), (other, _) = _train({}), _train({})
    assert one.epoch_losses == other.epoch_losses
    assert FedCorr().mixes
    assert not FedCorr(alpha=0).mixes


# --- stages and refused values


@pytest.mark.parametrize(
    ("num_rounds", "values", "stages"),
    [
        (40, {}, (20, 10)),
        (100, {}, (50, 25)),
        (10, {}, (5, 3)),  # 2.5
        (4, {}, (2, 1)),
        (3, {}, (1, 1)),
        (2, {}, (1, 0)),
        (1, {}, (1, 0)),
        (10, {"fine_tuning": 0}, (5, 0)),
        (10, {"preprocessing": 1.0}, (8, 1)),
        (10, {"preprocessing": 1.0, "fine_tuning": 0.0}, (9, 0)),
        (10, {"preprocessing_rounds": 3, "fine_tuning_rounds": 2}, (3, 2)),
        (10, {"preprocessing_rounds": 9}, (9, 0)),
        (10, {"fine_tuning_rounds": 8}, (1, 8)),
        (1100, {"preprocessing_rounds": 1000, "fine_tuning_rounds": 50}, (1000, 50)),  # the authors'
    ],
)
def test_lengths_of_stages(num_rounds: int, values: dict[str, Any], stages: tuple[int, int]) -> None:
    assert FedCorr(**values).stages(num_rounds) == stages


@given(st.floats(1e-6, 1), st.floats(0, 1), st.integers(1, 10_000))
def test_there_is_always_a_first_stage_and_in_longer_runs_a_third(first: float, second: float, rounds: int) -> None:
    found = FedCorr(preprocessing=first, fine_tuning=second).stages(rounds)
    assert found[0] >= 1
    assert found[1] >= 0
    assert sum(found) < max(2, rounds)


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ({"preprocessing_rounds": 10}, 10),
        ({"preprocessing_rounds": 6, "fine_tuning_rounds": 4}, 10),
        ({"fine_tuning_rounds": 9}, 10),
    ],
)
def test_lengths_that_leave_nothing_for_stage_3_are_refused(values: dict[str, int], least: int) -> None:
    sentence = f"stages 1 and 2 take at least {least} rounds, but 'num-server-rounds' is 10; they must be fewer"
    with pytest.raises(ConfigError, match=sentence):
        FedCorr(**values).stages(10)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"preprocessing": 0}, "preprocessing must be a number above 0 and at most 1"),
        ({"preprocessing_rounds": 0}, "preprocessing-rounds must be a whole number from 1"),
        ({"fine_tuning": 1.5}, "fine-tuning must be a number at least 0 and at most 1"),
        ({"fine_tuning_rounds": -2}, "fine-tuning-rounds must be a whole number from 0"),
        ({"iterations": -1}, "iterations must be a whole number of at least 0"),
        ({"alpha": -1.0}, "alpha must be a number at least 0"),
        ({"beta": math.nan}, "beta must be a number at least 0"),
        ({"proximal": "cubed"}, "proximal must be one of norm, squared"),
        ({"neighbours": 1}, "neighbours must be a whole number of at least 2"),
        ({"relabel_ratio": 1.1}, "relabel-ratio must be a number at least 0 and at most 1"),
        ({"confidence": -0.1}, "confidence must be a number at least 0 and at most 1"),
        ({"clean_share": 2.0}, "clean-share must be a number at least 0 and at most 1"),
        ({"groups": "never"}, "groups must be one of standing-out, always"),
        ({"least_gap": -0.1}, "least-gap must be a number at least 0"),
    ],
)
def test_bad_values_end_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FedCorr(**values)
