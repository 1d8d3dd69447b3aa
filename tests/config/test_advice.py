"""Which learning rate a method or an optimiser suits is said to whoever has not chosen one."""

from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from config.__main__ import app
from config.advice import advice_on_learning_rate
from config.check import examine
from config.choices import METHODS, PRESETS
from config.known import METHODS as KNOWN


def _advice(**values: Any) -> list[str]:
    given = {key.replace("_", "-"): value for key, value in values.items()}
    config, problems = examine(given)
    assert not problems
    return advice_on_learning_rate(config, KNOWN[config.method], given)


@pytest.mark.parametrize(
    ("method", "preset", "suited", "own"),
    [
        ("fedlsr", "notebook", "0.1", "0.01"),
        ("fedlsr", "clothing1m", "0.01", "0.001"),
        ("gce", "notebook", "0.1", "0.01"),
        ("gce", "clothing1m", "0.01", "0.001"),
    ],
)
def test_a_presets_own_learning_rate_is_pointed_out(method: str, preset: str, suited: str, own: str) -> None:
    assert _advice(method=method, preset=preset) == [
        f"'method' is '{method}', which suits a 'learning-rate' of {suited} with 'preset' '{preset}'; it is {own}"
        " (docs/methods.md says why)."
    ]


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 3.0])
def test_whoever_sets_a_learning_rate_has_chosen_it(rate: float) -> None:
    assert _advice(method="fedlsr", preset="clothing1m", learning_rate=rate) == []


def test_other_runs_get_no_advice() -> None:
    assert _advice(method="fedlsr") == _advice(method="gce") == []
    for preset in PRESETS:
        assert _advice(preset=preset) == []
    config = examine({"preset": "notebook"})[0]
    suited = SimpleNamespace(learning_rates={"notebook": config.learning_rate})
    assert advice_on_learning_rate(config, suited, ()) == []


def test_a_rate_that_was_chosen_for_sgd_is_pointed_out_to_adamw() -> None:
    sentence = (
        "'optimizer' is 'adamw', but 'learning-rate' is 0.01, which was chosen for sgd; adamw mostly takes 0.0001 to"
        " 0.001."
    )
    assert _advice(method="gce", preset="notebook", optimizer="adamw") == [sentence]
    assert _advice(optimizer="adamw") == [sentence.replace("0.01,", "0.004,")]
    assert _advice(optimizer="adamw", learning_rate=0.004) == []


def test_learning_rates_are_for_presets_that_exist() -> None:
    for method in METHODS:
        assert KNOWN[method].learning_rates.keys() <= PRESETS.keys()
        assert all(rate > 0 for rate in KNOWN[method].learning_rates.values())


def test_the_command_says_it() -> None:
    def said(pairs: str) -> str:
        return CliRunner().invoke(app, ["check", "-c", pairs]).stdout

    sentence = "suits a 'learning-rate' of 0.1 with 'preset' 'notebook'; it is 0.01"
    assert sentence in said("preset='notebook' method='fedlsr'")
    assert "suits" not in said("preset='notebook' method='fedlsr' learning-rate=0.01")
    assert "suits" not in said("preset='notebook' method='custom.confidence:ConfidencePenalty'")
