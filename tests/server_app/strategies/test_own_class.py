"""What `build_strategy` makes of names, parameters, and classes of one's own."""

import flwr.serverapp.strategy as flower
import pytest

from config import ConfigError, RunConfig
from server_app.strategies import STRATEGIES, build_strategy

STOCK = "flwr.serverapp.strategy:"


def _build(name: str, args: str = "") -> flower.Strategy:
    return build_strategy(RunConfig(strategy=name, strategy_args=args))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        _build("fedsgd")
    assert str(caught.value) == (
        f"run config: 'strategy' is 'fedsgd'; it must be one of {', '.join(sorted(STRATEGIES))},"
        " or a class of your own as 'module:Class'."
    )


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("fedadam", "min-train-nodes, min-evaluate-nodes, min-available-nodes, eta, tau, beta-1, beta-2"),
        ("qfedavg", "min-train-nodes, min-evaluate-nodes, min-available-nodes, q, client-learning-rate"),
        (STOCK + "FedAdagrad", "min-train-nodes, min-evaluate-nodes, min-available-nodes, eta, eta-l, tau"),
    ],
)
def test_an_unknown_parameter_lists_the_known_ones(name: str, takes: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _build(name, "speed=2")
    assert str(caught.value) == f"run config: 'strategy-args' names 'speed'; {name} takes {takes}."


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere:Strategy", "'nowhere' cannot be imported"),
        (":Strategy", "'' cannot be imported"),
        ("server_app.strategies:STRATEGIES", "'STRATEGIES' must be a class of server_app.strategies that derives"),
        ("server_app.strategies.fedavg:FedProx", "'FedProx' must be a class of server_app.strategies.fedavg"),
        (STOCK + "Strategy", "'Strategy' must be a class of flwr.serverapp.strategy that derives"),
    ],
)
def test_what_is_no_strategy_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        _build(name)
    assert "\n" not in str(caught.value)


def test_parameters_reach_the_class() -> None:
    strategy = _build(STOCK + "FedAdam", "eta=0.5 min-train-nodes=3")
    assert isinstance(strategy, flower.FedAdam)
    assert (strategy.eta, strategy.min_train_nodes) == (0.5, 3)
