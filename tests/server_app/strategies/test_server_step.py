"""Strategies that step along the mean update: numbers worked out by hand, and Flower's classes where they agree."""

from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from client_app.app import app as client_app
from config.run_config import RunConfig
from server_app.strategies.fedavg import StreamingFedAvg
from server_app.strategies.fedavgm import FedAvgM
from server_app.strategies.fedexp import FedExP
from server_app.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from server_app.strategies.fedprox import FedProx
from server_app.strategies.qfedavg import QFedAvg
from server_app.strategy import build_strategy
from tests.fakes import InProcessGrid, one_round, partitions, record, train_reply

ZERO = {"w": np.zeros(2)}


def _replies(rows: list[list[float]], examples: list[int], losses: list[float] | None = None) -> list[Any]:
    losses = losses or [1.0] * len(rows)
    return [
        train_reply({"w": np.array(row, dtype=float)}, count, loss)
        for row, count, loss in zip(rows, examples, losses, strict=True)
    ]


def test_fedavg_of_five() -> None:
    rows = [[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [1.0, 1.0], [10.0, -10.0]]
    assert one_round(StreamingFedAvg(), ZERO, _replies(rows, [10, 20, 30, 20, 20]))["w"] == pytest.approx([3.15, -0.95])
    assert one_round(StreamingFedAvg(), ZERO, _replies(rows, [1] * 5))["w"] == pytest.approx([3.1, -0.9])


def test_fedexp_by_hand() -> None:
    """Mean update (.4, .4), sum p ||Delta||^2 = .9: eta = .9 / (2 (.32 + .001)) = 1.401869."""
    rows = [[1.0, 0.0], [0.0, 1.0], [-0.5, 0.5]]
    new = one_round(FedExP(), ZERO, _replies(rows, [5, 3, 2]))["w"]
    assert new == pytest.approx([0.560748, 0.560748], abs=1e-6)
    uniform = one_round(FedExP(), ZERO, _replies(rows, [1, 1, 1]))["w"]
    assert uniform == pytest.approx(1.494619 * np.array([0.5, 1.5]) / 3, abs=1e-6)


@pytest.mark.parametrize(("clients", "rate"), [(5, 2.487562), (10, 4.950495)])
def test_fedexp_with_orthonormal_updates(clients: int, rate: float) -> None:
    rows = np.eye(clients).tolist()
    new = one_round(FedExP(), {"w": np.zeros(clients)}, _replies(rows, [7] * clients))["w"]
    assert new == pytest.approx(np.full(clients, rate / clients), abs=1e-6)


def test_fedexp_compares_with_the_model_of_this_round_and_is_fedavg_when_clients_agree() -> None:
    """Comparing with the model of round 0 would make eta_g 1, as in FNBench."""
    strategy, offset = FedExP(), 100.0
    for server_round in (1, 2):
        rows = (offset + np.eye(10)).tolist()
        new = one_round(strategy, {"w": np.full(10, offset)}, _replies(rows, [1] * 10), server_round)["w"]
        assert new == pytest.approx(np.full(10, offset + 0.4950495), abs=1e-6)
    agreed = one_round(FedExP(), ZERO, _replies([[1.0, 2.0]] * 3, [1, 2, 3]))["w"]
    assert agreed == pytest.approx([1.0, 2.0])


def test_qfedavg_by_hand() -> None:
    """L = 2, q = 1: sum F Delta = 1 * -2 + 4 * -6 = -26; h = (4 + 2) + (36 + 8) = 50; w = 0 + 26 / 50."""
    replies = [train_reply({"w": np.array([1.0])}, 9, 1.0), train_reply({"w": np.array([3.0])}, 1, 4.0)]
    new = one_round(QFedAvg(q=1.0, client_learning_rate=0.5), {"w": np.zeros(1)}, replies)
    assert new["w"] == pytest.approx([0.52])


def test_qfedavg_with_q_0_is_the_unweighted_mean() -> None:
    rows = [[1.0, 2.0], [3.0, -2.0]]
    new = one_round(QFedAvg(q=0.0, client_learning_rate=0.01), ZERO, _replies(rows, [1, 99], [0.3, 7.0]))
    assert new["w"] == pytest.approx([2.0, 0.0])


def test_qfedavg_takes_the_rate_of_the_round() -> None:
    """L = 2 in round 1, as by hand above; L = 4 in round 2: sum F Delta = -4 + 4 * -12 = -52; h = 20 + 160 = 180."""
    settings: dict[str, Any] = {
        "strategy": "qfedavg", "learning_rate": 0.5, "lr_schedule": "linear", "num_server_rounds": 2,
    }  # fmt: skip
    usual = build_strategy(RunConfig(**settings, strategy_args="q=1.0"))
    own = build_strategy(RunConfig(**settings, strategy_args="q=1.0 client-learning-rate=0.5"))
    for server_round, expected in ((1, 0.52), (2, 52 / 180)):
        for strategy, value in ((usual, expected), (own, 0.52)):
            replies = [train_reply({"w": np.array([1.0])}, 9, 1.0), train_reply({"w": np.array([3.0])}, 1, 4.0)]
            new = one_round(strategy, {"w": np.zeros(1)}, replies, server_round)
            assert new["w"] == pytest.approx([value], rel=1e-6)


def test_qfedavg_needs_losses() -> None:
    with pytest.raises(ValueError, match=r"train-loss is -1\.0; qfedavg needs a number of at least 0"):
        one_round(QFedAvg(client_learning_rate=0.1), ZERO, _replies([[1.0, 1.0]], [1], [-1.0]))
    with pytest.raises(ValueError, match="client-learning-rate must be a number above 0"):
        QFedAvg()


def test_fedavgm_by_hand() -> None:
    """Delta = 1 in both rounds: v = 1, then .5 * 1 + 1 = 1.5; steps of .1 * v."""
    strategy = FedAvgM(server_learning_rate=0.1, server_momentum=0.5)
    first = one_round(strategy, ZERO, _replies([[1.0, 1.0]], [1]))["w"]
    assert first == pytest.approx([0.1, 0.1])
    second = one_round(strategy, {"w": first}, _replies([[1.1, 1.1]], [1]), 2)["w"]
    assert second == pytest.approx([0.25, 0.25])


@given(st.lists(st.tuples(st.floats(-10, 10, width=32), st.integers(1, 1000)), min_size=1, max_size=5))
def test_fedavgm_with_its_defaults_is_fedavg(pairs: Any) -> None:
    sent = {"w": np.array([0.3], np.float32)}
    replies = [[train_reply({"w": np.array([value], np.float32)}, count) for value, count in pairs] for _ in range(2)]
    averaged = one_round(StreamingFedAvg(), sent, replies[1])["w"]
    assert one_round(FedAvgM(), sent, replies[0])["w"] == pytest.approx(averaged, rel=1e-7, abs=1e-15)


def test_fedadam_fedyogi_and_fedadagrad_by_hand() -> None:
    """Delta = .1, v_{-1} = 1e-6.

    FedAdam: m = .01, v = .99e-6 + .01 * .01 = 1.0099e-4; .1 * .01 / (.0100494 + .001) = .0905028.
    FedYogi: v = 1e-6 - .01 * .01 * sign(1e-6 - .01) = 1.01e-4; .01 * .01 / (.0100499 + .001) = .00904985.
    FedAdagrad: v = 1e-6 + .01 = .010001; .1 * .1 / (.100005 + .001) = .0990050.
    """
    for strategy, moved in ((FedAdam(), 0.0905028), (FedYogi(), 0.00904985), (FedAdagrad(), 0.0990050)):
        new = one_round(strategy, {"w": np.array([1.0])}, [train_reply({"w": np.array([1.1])})])
        assert new["w"] == pytest.approx([1 + moved], abs=1e-7)


def _next_of_flower(strategy: flower.FedAvg, server_round: int, sent: Any, replies: Any) -> Any:
    strategy.configure_train(server_round, record(sent), ConfigRecord(), InProcessGrid(client_app, partitions(2)))
    arrays, _ = strategy.aggregate_train(server_round, replies)
    assert arrays is not None
    return {name: array.numpy() for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("ours", "flowers"),
    [
        (
            FedAvgM(server_learning_rate=0.7, server_momentum=0.9),
            flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.9),
        ),
        (FedAdagrad(eta=0.05), flower.FedAdagrad(eta=0.05)),
        (FedYogi(), flower.FedYogi()),
        (FedAdam(), flower.FedAdam()),
        (QFedAvg(q=0.5, client_learning_rate=0.1), flower.QFedAvg(0.1, q=0.5, train_loss_key="train-loss")),
        (FedProx(proximal_mu=0.1), flower.FedProx(proximal_mu=0.1)),
    ],
    ids=lambda strategy: type(strategy).__name__,
)  # fmt: skip
def test_three_rounds_equal_flowers_where_it_follows_the_paper(ours: Any, flowers: flower.FedAvg) -> None:
    """v is made to start at tau^2 there too, and FedAdam's bias correction is removed from eta."""
    rng = np.random.default_rng(4)
    one = other = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    if isinstance(flowers, flower.FedAdagrad | flower.FedAdam | flower.FedYogi):
        flowers.v_t = {name: np.full(value.shape, flowers.tau**2) for name, value in one.items()}
    for server_round in (1, 2, 3):
        if isinstance(flowers, flower.FedAdam):
            flowers.eta = 0.1 * (1 - 0.9 ** (server_round + 1)) / np.sqrt(1 - 0.99 ** (server_round + 1))
        rows = [
            ({name: value + rng.normal(scale=0.1, size=value.shape) for name, value in one.items()}, count, loss)
            for count, loss in ((3, 0.5), (1, 2.0), (6, 1.1))
        ]
        one = one_round(ours, one, [train_reply(*row) for row in rows], server_round)
        other = _next_of_flower(flowers, server_round, other, [train_reply(*row) for row in rows])
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_fedprox_sends_mu() -> None:
    config = ConfigRecord()
    grid = InProcessGrid(client_app, partitions(2))
    FedProx(proximal_mu=0.25).configure_train(1, record(ZERO), config, grid)
    assert config["proximal-mu"] == 0.25


def test_a_moment_of_another_shape_is_refused() -> None:
    strategy = FedAvgM(server_momentum=0.9)
    strategy.load_state({"momentum/w": np.zeros(3)})
    with pytest.raises(ValueError, match=r"the saved momentum of 'w' has shape \(3,\); it must be \(2,\)"):
        one_round(strategy, ZERO, _replies([[1.0, 1.0]], [1]))
    with pytest.raises(ValueError, match="FedAvgM keeps momentum, but 'second-moment/w' was saved"):
        strategy.load_state({"second-moment/w": np.zeros(3)})
    with pytest.raises(ValueError, match="FedProx keeps no state, but 'momentum/w' was saved"):
        FedProx(proximal_mu=0.1).load_state({"momentum/w": np.zeros(3)})
