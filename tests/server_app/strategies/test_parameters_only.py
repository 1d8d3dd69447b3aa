"""Every strategy beside BatchNorm that clients keep for themselves (``batchnorm = "local"``)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from config.run_config import RunConfig
from learning.shared_state import batchnorm_names
from server_app.strategies import STRATEGIES, Stateful
from server_app.strategies.parameters_only import keep_apart
from server_app.strategy import build_strategy
from tests.batchnorm_models import moved, network, state_of
from tests.fakes import one_round, train_reply

# Parameters that give each rule an effect; Flower's own classes are already kept from BatchNorm's statistics.
ARGS = {
    "fedavgm": "server-momentum=0.9",
    "qfedavg": "q=1.0",
    "multikrum": "num-nodes-to-select=2",
    "flwr.serverapp.strategy:FedAvgM": "server-momentum=0.9",
    "flwr.serverapp.strategy:FedAdam": "",
    "flwr.serverapp.strategy:Krum": "",
}
NAMES = [*STRATEGIES, *(name for name in ARGS if ":" in name)]
MODEL = state_of(network())
APART = batchnorm_names(network())
REST = MODEL.keys() - APART


def build(name: str, apart: Iterable[str] = APART) -> Any:
    strategy = build_strategy(RunConfig(strategy=name, strategy_args=ARGS.get(name, "")))
    if apart:
        keep_apart(strategy, frozenset(apart))
    return strategy


def replies_of(arrays: dict[str, np.ndarray], server_round: int) -> list[tuple[dict[str, np.ndarray], int]]:
    rng = np.random.default_rng(server_round)
    return [(moved(arrays, rng), 3 + number) for number in range(5)]


def rounds(strategy: Any, arrays: dict[str, np.ndarray], numbers: Iterable[int]) -> dict[str, np.ndarray]:
    for server_round in numbers:
        replies = [train_reply(model, count, 0.5 + count) for model, count in replies_of(arrays, server_round)]
        arrays = one_round(strategy, arrays, replies, server_round)
    return arrays


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_is_aggregated_as_if_there_were_no_batchnorm(name: str) -> None:
    """Also distances and norms, by which some strategies choose, or weight, are those of the rest."""
    whole, rest = build(name), build(name, ())
    one, other = MODEL, {key: value for key, value in MODEL.items() if key in REST}
    for server_round in (1, 2, 3):
        replies = replies_of(one, server_round)
        one = one_round(whole, one, [train_reply(model, n, 0.5 + n) for model, n in replies], server_round)
        short = [({key: model[key] for key in other}, n) for model, n in replies]
        other = one_round(rest, other, [train_reply(model, n, 0.5 + n) for model, n in short], server_round)
        assert list(one) == list(MODEL)
        for key, value in one.items():
            assert value.dtype == MODEL[key].dtype
            if key in REST:
                np.testing.assert_array_equal(value, other[key], err_msg=key)
            elif value.dtype.kind == "f":
                mean = np.average([model[key] for model, _ in replies], axis=0, weights=[n for _, n in replies])
                np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-7, err_msg=key)
            else:
                assert value == max(model[key] for model, _ in replies)


@pytest.mark.parametrize("name", [name for name in NAMES if ":" not in name])
def test_state_is_saved_and_loaded(name: str) -> None:
    expected = rounds(build(name), MODEL, (1, 2, 3, 4))
    first, second = build(name), build(name)
    halfway = rounds(first, MODEL, (1, 2))
    assert isinstance(first, Stateful)
    assert not [key for key in first.state() if any(key.endswith(one) for one in APART)]
    second.load_state(safetensors.numpy.load(safetensors.numpy.save(first.state())))
    for key, value in rounds(second, halfway, (3, 4)).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_the_class_keeps_its_name() -> None:
    assert type(build("fedadam")).__name__ == "FedAdam"
    assert isinstance(build("fedadam"), STRATEGIES["fedadam"])  # type: ignore[arg-type]
