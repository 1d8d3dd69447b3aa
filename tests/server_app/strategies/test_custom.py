"""What `build_strategy` makes of names, parameters, and the user's own classes."""

import logging
from pathlib import Path

import flwr.serverapp.strategy as flower
import numpy as np
import pytest

from config.run_config import ConfigError, RunConfig
from server_app.checkpoint_file import Checkpoint
from server_app.strategies import STRATEGIES
from server_app.strategy import build_strategy, restore, state_of

STOCK = "flwr.serverapp.strategy:"


def _build(name: str, args: str = "") -> flower.Strategy:
    return build_strategy(RunConfig(strategy=name, strategy_args=args))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        _build("fedsgd")
    assert str(caught.value) == (
        f"run config: 'strategy' is 'fedsgd'; it must be one of auto, {', '.join(STRATEGIES)}, or your own class as"
        " 'module:Class' (did you mean 'fedavg'?)."
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
        (":Strategy", "a class of your own must be named as 'module:Class', such as 'custom.mine:Mine'"),
        ("../x:y", "a class of your own must be named as"),
        ("..x:y", "a class of your own must be named as"),
        ("a:b:c", "a class of your own must be named as"),
        ("broken_by_syntax:X", r"cannot be imported: .*\(broken_by_syntax.py, line 1\)"),
        ("broken_by_name:X", r"cannot be imported: NameError: .*broken_by_name.py, line 2\)"),
        ("broken_by_text:X", r"cannot be imported: RuntimeError: two \| lines\?\[31m \("),
        ("server_app.strategies:STRATEGIES", "'STRATEGIES' must be a class of server_app.strategies that derives"),
        ("server_app.strategies.fedavg:FedProx", "'FedProx' must be a class of server_app.strategies.fedavg"),
        (STOCK + "Strategy", "'Strategy' must be a class of flwr.serverapp.strategy that derives"),
    ],
)
def test_what_is_not_a_strategy_is_refused(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_by_syntax.py").write_text("class X(:\n")
    (tmp_path / "broken_by_name.py").write_text("\nX = Y\n")
    (tmp_path / "broken_by_text.py").write_text("raise RuntimeError('two\\nlines\\x1b[31m')\n")
    with pytest.raises(ConfigError, match=sentence) as caught:
        _build(name)
    assert "\n" not in str(caught.value)


def test_parameters_reach_the_class() -> None:
    strategy = _build(STOCK + "FedAdam", "eta=0.5 min-train-nodes=3")
    assert isinstance(strategy, flower.FedAdam)
    assert (strategy.eta, strategy.min_train_nodes) == (0.5, 3)


def test_a_class_without_state_is_a_warning_after_a_resume(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flwr").propagate = True
    stock, stateful = _build(STOCK + "FedAdam"), _build("fedadam")
    assert state_of(stock)() == {}
    restore(stock, Checkpoint(3, {}, {}, "", {}))
    assert caplog.messages == [
        "FedAdam saves no state in checkpoints: if it remembers earlier rounds, it has forgotten them."
    ]
    saved = Checkpoint(3, {}, {}, "", {"momentum/w": np.zeros(2)})
    with pytest.raises(ConfigError, match="'resume': FedAdam no longer has load_state"):
        restore(stock, saved)
    with pytest.raises(ConfigError, match="found the state of another strategy: FedAdam keeps first-moment, second"):
        restore(stateful, saved)
