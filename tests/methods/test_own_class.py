"""Methods that the user names as ``"module:Class"``."""

import sys
import types
from dataclasses import dataclass

import pytest

from config.run_config import ConfigError, RunConfig
from learning.method import Method
from methods import METHODS, build_method, with_own_strategy
from methods.ce import CE


@dataclass(frozen=True)
class Mine(CE):
    times: float = 1.0

    strategy = "fedavgm"


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("custom.mine")
    module.__dict__.update(Mine=Mine, Method=Method, number=7)
    monkeypatch.setitem(sys.modules, "custom.mine", module)


def test_it_is_built_with_its_parameters_and_its_strategy() -> None:
    config = RunConfig(method="custom.mine:Mine", method_args="times=2.0 label-smoothing=0.1")
    assert build_method(config) == Mine(label_smoothing=0.1, times=2.0)
    assert with_own_strategy(config).strategy == "fedavgm"


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        (
            "mine",
            "",
            f"'method' is 'mine'; it must be one of {', '.join(METHODS)}, or your own class as 'module:Class'.",
        ),
        ("custom.mine:", "", "a class of your own must be named as 'module:Class', such as 'custom.mine:Mine'."),
        ("custom.nowhere:X", "", "files of your own belong into the app's folder custom/."),
        ("custom.mine:number", "", "'number' must be a class of custom.mine that derives from learning.method.Method"),
        ("custom.mine:Nothing", "", "'Nothing' must be a class of custom.mine that derives from"),
        ("custom.mine:Method", "", "'Method' must be a class of custom.mine that derives from"),
        (
            "custom.mine:Mine",
            "speed=2",
            "'method-args' names 'speed'; custom.mine:Mine takes label-smoothing, mixup, times.",
        ),
    ],
)
def test_what_is_no_method_is_refused_in_one_sentence(name: str, args: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_method(RunConfig(method=name, method_args=args))
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()
