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
        r" it must be another one, or the method fednoro, fedelc, maskedoptim, [\w, -]+ or \w+\.",
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


def _problems(**values: object) -> list[str]:
    return examine({key.replace("_", "-"): value for key, value in values.items()})[1]


def test_q_fedavg_needs_updates_that_are_multiples_of_gradients_or_a_rate_of_its_own() -> None:
    assert _problems(strategy="qfedavg", optimizer="adamw") == [
        "run config: 'strategy' is 'qfedavg', which divides updates by the learning rate to get gradients, but"
        " 'optimizer' is 'adamw', whose updates are no such multiples; it must be sgd, or 'strategy-args' must set"
        " client-learning-rate."
    ]
    assert _problems(strategy="qfedavg", optimizer="adamw", strategy_args="client-learning-rate=0.1") == []
    assert _problems(strategy="qfedavg", lr_schedule="cosine") == []


def test_features_that_never_change_are_not_decorrelated() -> None:
    assert _problems(method="feddecorr", trainable="head") == [
        "run config: 'method' is 'feddecorr', which decorrelates features, but 'trainable' is 'head', which leaves them"
        " as they are; it must be all or lora, or 'method' another one."
    ]
    assert _problems(method="feddecorr", trainable="lora") == _problems(method="dualoptim", trainable="head") == []


def test_nesterovs_momentum_needs_momentum() -> None:
    assert _problems(momentum=0, optimizer_args="nesterov=true") == [
        "run config: 'optimizer-args' is 'nesterov=true', but 'momentum' is 0; nesterov must be false, or 'momentum'"
        " above 0."
    ]
    assert _problems(preset="notebook", momentum=0, optimizer_args="nesterov=false") == []
    assert _problems(preset="notebook", momentum=0.9, optimizer_args="nesterov=true") == []
    assert _problems(momentum=0, optimizer="adamw") == []


@pytest.mark.parametrize(("warm_up", "rounds", "refused"), [(0, 1, False), (1, 1, True), (4, 4, True), (3, 4, False)])
def test_a_climb_leaves_a_round_at_the_top(warm_up: int, rounds: int, refused: bool) -> None:
    sentence = (
        f"run config: 'lr-warm-up' is {warm_up}, but 'num-server-rounds' is {rounds}; it must be below that, so that at"
        " least one round has the whole 'learning-rate'."
    )
    assert _problems(lr_warm_up=warm_up, num_server_rounds=rounds) == [sentence] * refused


def test_clients_that_are_to_evaluate_on_what_they_hold_out_are_asked() -> None:
    own = {"eval_split": "own", "holdout_fraction": 0.1}
    assert _problems(**own) == [
        "run config: 'eval-split' is own, but 'fraction-evaluate' is 0, so no client evaluates; it must be above 0, or"
        " 'eval-split' clean_val."
    ]
    assert _problems(**own, fraction_evaluate=0.1) == []
    [problem] = _problems(**own, val_split="noisy")  # which says the same
    assert "'fraction-evaluate' and 'holdout-fraction' above 0" in problem
    [problem] = _problems(eval_split="own")
    assert "'holdout-fraction' is 0" in problem


def test_label_wave_has_rounds_to_pick_from() -> None:
    wave = {"val_split": "label-wave", "inspection": "before"}
    assert _problems(**wave, num_server_rounds=3) == [
        "run config: 'num-server-rounds' is 3, but 'val-split' is label-wave, which needs the changes of three rounds,"
        " and the first has none; it must be at least 4."
    ]
    assert _problems(**wave, num_server_rounds=4) == []


def test_nothing_is_said_that_follows_from_a_bad_value() -> None:
    [problem] = _problems(lr_warm_up=20, num_server_rounds=0)
    assert "'num-server-rounds' is 0" in problem
    [problem] = _problems(strategy="qfedavg", optimizer="adamw", strategy_args="client-learning-rate=0")
    assert "client-learning-rate of qfedavg is 0" in problem


def test_losses_by_class_are_not_private() -> None:
    args = "noise-multiplier=0.0 clipping-norm=5.0"
    with pytest.raises(ConfigError, match="'privacy' is 'server-fixed', but 'method' is 'fednoro', for which clients"):
        _check(method="fednoro", strategy="fedavg", privacy="server-fixed", privacy_args=args)
    _check(method="elr", privacy="server-fixed", privacy_args=args)


def test_a_bad_parameter_is_refused_in_the_methods_own_words() -> None:
    with pytest.raises(ConfigError, match=r"'method-args' is \"clients='some'\"; fednoro refuses it: clients must be"):
        build_method(RunConfig(method="fednoro", method_args="clients='some'"))
