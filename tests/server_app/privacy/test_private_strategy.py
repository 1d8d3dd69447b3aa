"""Differential privacy: formulas by hand, what is protected, and every strategy that supports it."""

import logging
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import ConfigRecord, Message

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from server_app.privacy.clipping_norms import AdaptiveClipping
from server_app.privacy.private_strategy import SECRET, Private, takes_one_mean
from server_app.strategies import STRATEGIES, Sized, Stateful
from server_app.strategy import check_needs, make_strategy
from tests.batchnorm_models import moved, network, state_of
from tests.fakes import InProcessGrid, one_round, partitions, record, train_reply

NAMES = [name for name, cls in STRATEGIES.items() if takes_one_mean(cls)]
HARMLESS = "noise-multiplier=0 clipping-norm=1e9"
ARGS = {"fedavgm": "server-momentum=0.9", "fedprox": "proximal-mu=0.1"}


def _private(privacy: str = "server-fixed", args: str = HARMLESS, strategy: str = "fedavg", **values: Any) -> Any:
    config = RunConfig(
        strategy=strategy, strategy_args=ARGS.get(strategy, ""), privacy=privacy, privacy_args=args, **values
    )
    return make_strategy(config)


def _aggregate(strategy: Any, updates: Any, counts: Any = None, server_round: int = 1) -> tuple[Any, Any]:
    """New weights and metrics, given the clients' updates to a model of zeros."""
    updates = np.asarray(updates, np.float32)
    zeros = record({"w": np.zeros_like(updates[0])})
    strategy.configure_train(server_round, zeros, ConfigRecord(), InProcessGrid(client_app, partitions(len(updates))))
    counts = [1] * len(updates) if counts is None else counts
    replies = [train_reply({"w": update}, count) for update, count in zip(updates, counts, strict=True)]
    arrays, metrics = strategy.aggregate_train(server_round, iter(replies))
    return arrays["w"].numpy(), metrics


def test_all_clients_have_equal_weight() -> None:
    """Updates of norms 5 and 0.5, clipped to 1: (0.6 + 0.3) / 2 and (0.8 + 0.4) / 2."""
    new, metrics = _aggregate(_private(args="noise-multiplier=0 clipping-norm=1"), [[3, 4], [0.3, 0.4]], [1, 99])
    assert new == pytest.approx([0.45, 0.6])
    assert dict(metrics) == {"train-loss": 1.0, "clipping-norm": 1.0, "noise-stddev": 0.0}


def test_noise_has_the_deviation_of_the_formula_and_spares_buffers() -> None:
    """z = 2, C = 3, 4 replies: 2 * 3 / 4 = 1.5."""
    arrays = {"w": np.zeros(200_000, np.float32), "bn.running_var": np.ones(50, np.float32)}
    strategy = _private(args="noise-multiplier=2 clipping-norm=3")
    noised = one_round(strategy, arrays, [train_reply(arrays) for _ in range(4)])
    assert noised["w"].std() == pytest.approx(1.5, rel=0.01)
    assert abs(noised["w"].mean()) < 0.02
    np.testing.assert_array_equal(noised["bn.running_var"], arrays["bn.running_var"])


def test_noise_comes_before_the_strategys_step() -> None:
    """Momentum 0.9 without updates: the second round's model repeats 0.9 of the first one's noise."""
    strategy = _private(args="noise-multiplier=1 clipping-norm=1", strategy="fedavgm")
    first, _ = _aggregate(strategy, np.zeros((2, 1000)))
    second, _ = _aggregate(strategy, np.zeros((2, 1000)), server_round=2)
    alone, _ = _aggregate(_private(args="noise-multiplier=1 clipping-norm=1"), np.zeros((2, 1000)), server_round=2)
    np.testing.assert_allclose(second, 0.9 * first + alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_huge_norm_and_no_noise_change_no_bit(name: str) -> None:
    """With one example each, the weights are uniform. With equal larger numbers, results differ by rounding at most."""
    plain = make_strategy(RunConfig(strategy=name, strategy_args=ARGS.get(name, "")))
    private, more = _private(strategy=name), _private(strategy=name)
    arrays = state_of(network())
    for server_round in (1, 2, 3):
        clients = [moved(arrays, np.random.default_rng((server_round, i))) for i in range(3)]
        new = one_round(plain, arrays, [train_reply(client) for client in clients], server_round)
        same = one_round(private, arrays, [train_reply(client) for client in clients], server_round)
        close = one_round(more, arrays, [train_reply(client, 7) for client in clients], server_round)
        for key, value in new.items():
            np.testing.assert_array_equal(same[key], value, err_msg=key)
            np.testing.assert_allclose(close[key], value, rtol=1e-6, err_msg=key)
            assert same[key].dtype == value.dtype
        arrays = new


def test_noise_follows_from_seed_round_and_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(seed: int = 1, server_round: int = 1, secret: str = "") -> Any:
        monkeypatch.setenv(SECRET, secret)
        strategy = _private(args="noise-multiplier=1 clipping-norm=1", seed=seed)
        return _aggregate(strategy, np.zeros((2, 8)), server_round=server_round)[0].tolist()

    state = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    assert noise() == noise()
    assert len({tuple(each) for each in (noise(), noise(seed=2), noise(server_round=2), noise(secret="x"))}) == 4
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index]  # noqa: NPY002


def test_noise_that_clients_could_remove_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("flwr").propagate = True
    monkeypatch.delenv(SECRET, raising=False)
    _private()
    assert caplog.messages == []
    _private(args="noise-multiplier=1 clipping-norm=1")
    assert f"Set {SECRET} where the server runs" in caplog.text
    caplog.clear()
    monkeypatch.setenv(SECRET, "x")
    _private(args="noise-multiplier=1 clipping-norm=1")
    assert caplog.messages == []


def test_the_norm_rises_when_updates_are_longer_and_falls_when_they_are_shorter() -> None:
    """All longer: C exp(-0.2 (0 - 0.5)) = C exp(0.1). All within: C exp(-0.2 (1 - 0.5)). One of four: C exp(0.05)."""
    args = "noise-multiplier=0 initial-clipping-norm=2"
    for updates, factor in (([[3.0]] * 4, 0.1), ([[1.0]] * 4, -0.1), ([[3.0]] * 3 + [[2.0]], 0.05)):
        strategy = _private("server-adaptive", args)
        new, metrics = _aggregate(strategy, updates)
        assert new == pytest.approx(2.0 if factor > 0 else 1.0)
        assert metrics["clipping-norm"] == 2.0  # which did the clipping
        assert strategy.clipping.clipping_norm == pytest.approx(2 * math.exp(factor))


def test_noise_is_shared_between_updates_and_bits() -> None:
    """z = 1, sigma_b = 1: (1 - 1/4)^(-1/2); by default sigma_b is a twentieth of the sampled clients."""
    assert AdaptiveClipping(noise_multiplier=1, clipped_count_stddev=1).update_noise(7) == pytest.approx(1.1547005)
    assert AdaptiveClipping(noise_multiplier=1).update_noise(20) == pytest.approx(1.1547005)
    assert (
        AdaptiveClipping(noise_multiplier=0).update_noise(1) == AdaptiveClipping(noise_multiplier=0).bit_noise(1) == 0
    )
    strategy = _private("server-adaptive", "noise-multiplier=1 clipped-count-stddev=1 initial-clipping-norm=3")
    _, metrics = _aggregate(strategy, np.zeros((6, 1)))
    assert metrics["noise-stddev"] == pytest.approx(1.1547005 * 3 / 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("privacy", ["server-fixed", "server-adaptive"])
def test_a_strategy_that_loads_anothers_state_continues_like_it(name: str, privacy: str) -> None:
    norm = "clipping-norm=0.5" if privacy.endswith("fixed") else "clipped-count-stddev=2"
    args = f"noise-multiplier=0.5 {norm}"

    def rounds(strategy: Any, arrays: Any, numbers: Any) -> Any:
        for server_round in numbers:
            clients = [moved(arrays, np.random.default_rng((server_round, i))) for i in range(3)]
            arrays = one_round(strategy, arrays, [train_reply(client) for client in clients], server_round)
        return arrays

    whole = rounds(_private(privacy, args, name), state_of(network()), (1, 2, 3, 4))
    first, second = _private(privacy, args, name), _private(privacy, args, name)
    half = rounds(first, state_of(network()), (1, 2))
    assert isinstance(first, Stateful)
    second.load_state(safetensors.numpy.load(safetensors.numpy.save(first.state())))
    for key, value in rounds(second, half, (3, 4)).items():
        np.testing.assert_array_equal(value, whole[key], err_msg=key)


def test_another_strategys_state_is_refused() -> None:
    with pytest.raises(ValueError, match="the clipping norm was not saved"):
        _private("server-adaptive", "noise-multiplier=0").load_state({})
    with pytest.raises(ValueError, match=r"StreamingFedAvg keeps no state, but 'privacy/other' was saved"):
        _private().load_state({"privacy/other": np.zeros(1)})


@pytest.mark.parametrize("strategy", [*(name for name in STRATEGIES if name not in NAMES), "tests.fakes:Strategy"])
def test_strategies_that_need_more_than_the_mean_are_refused(strategy: str) -> None:
    strategy = strategy.replace("tests.fakes:Strategy", "flwr.serverapp.strategy:FedAvg")
    with pytest.raises(ConfigError) as caught:
        _private(strategy=strategy)
    assert str(caught.value) == (
        f"run config: 'privacy' is 'server-fixed', but 'strategy' is {strategy!r}, which needs more than the mean of"
        " the replies; it must be one of fedavg, fedavgm, fedprox, fedadagrad, fedadam, fedyogi."
    )


@pytest.mark.parametrize(
    ("privacy", "args", "sentence"),
    [
        (
            "full",
            "",
            "'privacy' is 'full'; it must be one of none, server-fixed, server-adaptive, client-fixed, client-a",
        ),
        ("none", "clipping-norm=1", "'privacy-args' names 'clipping-norm'; none takes none"),
        ("server-fixed", "", "server-fixed refuses it: noise-multiplier must be a number at least 0"),
        ("client-fixed", "noise-multiplier=1", "client-fixed refuses it: clipping-norm must be a number above 0"),
        ("server-fixed", "noise-multiplier=1 clipping-norm=0", "clipping-norm must be a number above 0"),
        (
            "server-fixed",
            "num-sampled-clients=3",
            "names 'num-sampled-clients'; server-fixed takes noise-multiplier, cl",
        ),
        ("client-adaptive", "noise-multiplier=-1", "noise-multiplier must be a number at least 0"),
        (
            "server-adaptive",
            "noise-multiplier=1 target-clipped-quantile=2",
            "must be a number at least 0 and at most 1",
        ),
    ],
)
def test_bad_parameters_are_refused(privacy: str, args: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _private(privacy, args)
    assert sentence in str(caught.value)


def test_noise_that_so_few_clients_cannot_provide_is_refused_before_the_run() -> None:
    args = "noise-multiplier=1.0"
    config = RunConfig(strategy="fedavg", privacy="server-adaptive", privacy_args=args, fraction_train=0.1)
    strategy = make_strategy(config)
    check_needs(config, strategy, 110, network())
    with pytest.raises(ConfigError) as caught:
        check_needs(config, strategy, 100, network())
    assert str(caught.value) == (
        "run config: 'privacy-args': noise-multiplier 1 needs clipped-count-stddev above 0.5, but it is 0.5 with 10"
        " clients a round."
    )


def test_no_reply_gives_nothing() -> None:
    assert _private().aggregate_train(1, iter([])) == (None, None)


def test_the_wrapper_has_all_that_the_app_needs_of_a_strategy() -> None:
    strategy = _private(strategy="fedadam", fraction_train=0.29)
    assert isinstance(strategy, Private)
    assert isinstance(strategy, Sized)
    assert (strategy.holds_all_replies, strategy.least_replies, strategy.min_available_nodes) == (False, 1, 1)
    assert int(100 * strategy.fraction_train) == 29
    assert strategy.fraction_evaluate == 0


@pytest.mark.parametrize("replies", [3, 12])
@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
def test_memory_stays_below_the_estimate(name: str, replies: int) -> None:
    arrays = {f"layer{i}.weight": np.ones((64, 1024), np.float32) for i in range(8)}
    model_bytes = sum(value.nbytes for value in arrays.values())
    strategy = _private(args="noise-multiplier=1 clipping-norm=1", strategy=name)

    def stream() -> Iterator[Message]:
        for i in range(replies):
            yield train_reply({key: value + i for key, value in arrays.items()}, 1 + i)

    strategy.configure_train(1, record(arrays), ConfigRecord(), InProcessGrid(client_app, partitions(2)))
    tracemalloc.start()
    try:
        strategy.aggregate_train(1, stream())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= strategy.peak_bytes(model_bytes, replies)
    assert strategy.peak_bytes(model_bytes, 3) == strategy.peak_bytes(model_bytes, 12)
