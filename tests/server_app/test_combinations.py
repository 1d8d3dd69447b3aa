"""What `strategy = "auto"` stands for, and which combinations of settings are refused, with the reason."""

import re

import pytest

from config.check import examine
from config.combinations import check_combination
from config.run_config import ConfigError, RunConfig
from methods import METHODS, build_method, with_own_strategy
from server_app.strategies import STRATEGIES
from server_app.strategy import make_strategy

SUMS = [name for name, cls in STRATEGIES.items() if getattr(cls, "takes_one_mean", False)]


def _check(**values: object) -> None:
    config = with_own_strategy(RunConfig(**values))  # type: ignore[arg-type]
    check_combination(config, build_method(config), make_strategy(config))


def test_auto_is_the_methods_own_strategy() -> None:
    assert with_own_strategy(RunConfig()).strategy == "fedavg"
    assert with_own_strategy(RunConfig(method="fedelc")).strategy == "daagg"
    assert with_own_strategy(RunConfig(method="fedelc", strategy="fedadam")).strategy == "fedadam"
    assert with_own_strategy(RunConfig(method="maskedoptim")).strategy == "rfa"


@pytest.mark.parametrize("method", [name for name, cls in METHODS.items() if cls.finds_noisy_clients])
@pytest.mark.parametrize("strategy", ["auto", *(name for name in STRATEGIES if name != "qfedavg")])
def test_methods_that_find_noisy_clients_work_with_any_strategy_that_does_not_compare_losses(
    method: str, strategy: str
) -> None:
    _check(method=method, strategy=strategy)


def test_an_unknown_method_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'method' is 'cee'; it must be one of ce, sce, gce, "):
        with_own_strategy(RunConfig(method="cee"))
    with pytest.raises(ConfigError, match=r"'method-args' names 'q'; ce takes label-smoothing"):
        with_own_strategy(RunConfig(method_args="q=1"))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("strategy", SUMS)
def test_every_method_works_with_every_strategy_that_takes_a_mean(method: str, strategy: str) -> None:
    _check(method=method, strategy=strategy)


@pytest.mark.parametrize("strategy", ["krum", "multikrum", "bulyan", "rfa", "fedexp", "qfedavg"])
def test_two_networks_are_not_mixed(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"trains 2 networks that must not be mixed, and this strategy measures"):
        _check(method="co-teaching", strategy=strategy)


@pytest.mark.parametrize("strategy", ["fedmedian", "fedtrimmedavg"])
def test_two_networks_work_with_strategies_by_coordinate(strategy: str) -> None:
    _check(method="co-teaching", strategy=strategy)


def test_daagg_needs_a_method_that_finds_noisy_clients() -> None:
    with pytest.raises(ConfigError) as caught:
        _check(method="gce" if "gce" in METHODS else "elr", strategy="daagg")
    assert re.fullmatch(
        r"run config: 'strategy' is 'daagg', but 'method' is '\w+', which does not tell noisy clients from clean ones;"
        r" it must be another one, or the method fednoro, fedelc, maskedoptim or dualoptim\.",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("method", "args", "why"),
    [
        ("elr", "", "may be negative"),
        ("forward", "correction='backward'", "may be negative"),
        ("fedelc", "", "is not the same function on all clients"),
    ],
)
def test_q_fedavg_needs_losses_that_can_be_compared(method: str, args: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        _check(method=method, method_args=args, strategy="qfedavg")
    values = {"method": method, "method-args": args, "strategy": "qfedavg"}
    assert [why in problem for problem in examine(values)[1]] == [True]


def test_q_fedavg_takes_the_forward_correction() -> None:
    _check(method="forward", strategy="qfedavg")
    assert not examine({"method": "forward", "strategy": "qfedavg"})[1]


def test_losses_by_class_are_not_private() -> None:
    args = "noise-multiplier=0.0 clipping-norm=5.0"
    with pytest.raises(ConfigError, match="'privacy' is 'server-fixed', but 'method' is 'fednoro', for which clients"):
        _check(method="fednoro", strategy="fedavg", privacy="server-fixed", privacy_args=args)
    _check(method="elr", privacy="server-fixed", privacy_args=args)


def test_a_bad_parameter_is_refused_in_the_methods_own_words() -> None:
    with pytest.raises(ConfigError, match=r"'method-args' is \"clients='some'\"; fednoro refuses it: clients must be"):
        build_method(RunConfig(method="fednoro", method_args="clients='some'"))
