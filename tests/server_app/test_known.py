"""What `config.known` says of methods, strategies and privacy is what their classes do."""

from typing import Any

import pytest

from config.check import examine
from config.errors import ConfigError
from config.known import METHODS, PRIVACY, STRATEGIES
from config.named import build_named, kebab
from config.run_config import RunConfig
from methods import METHODS as METHOD_CLASSES
from methods import build_method
from server_app import known
from server_app.privacy.clipping_norms import PRIVACY as PRIVACY_CLASSES
from server_app.strategies import STRATEGIES as STRATEGY_CLASSES
from server_app.strategy import check_privacy, not_private

VALUES = (
    "0", "1", "-1", "2", "7", "0.5", "1.5", "-0.5", "0.0", "1.0", "nan", "inf", "-inf", "1e300", "true", "'x'", "''",
    "'paper'", "'detect'", "'/t.txt'", "'~nosuchuser'", "[1]", "2020-01-01", "9" * 30,
)  # fmt: skip
SET = {  # what must be set, or would be another key's value
    "qfedavg": "client-learning-rate=0.1",
    **dict.fromkeys(("server-fixed", "client-fixed"), "noise-multiplier=1.0 clipping-norm=1.0"),
    **dict.fromkeys(("server-adaptive", "client-adaptive"), "noise-multiplier=1.0"),
}
TABLES: Any = (
    ("method", METHODS, METHOD_CLASSES),
    ("strategy", STRATEGIES, STRATEGY_CLASSES),
    ("privacy", PRIVACY, PRIVACY_CLASSES),
)
PARAMETERS = [
    (key, name, parameter, classes)
    for key, table, classes in TABLES
    for name, one in table.items()
    for parameter in (one if key == "privacy" else one.parameters)
]


def test_the_file_is_what_the_classes_say() -> None:
    assert known.main(["--check"]) == 0


@pytest.mark.parametrize("name", METHODS)
def test_what_privacy_does_not_cover_is_refused_before_pytorch_is_imported(name: str) -> None:
    """The server refuses by the halves of a method, the config by what it knows of them: the same ones."""
    values = {"method": name, "strategy": "fedavg", "privacy": "server-fixed", "privacy-args": SET["server-fixed"]}
    config, problems = examine(values)
    method = build_method(RunConfig(method=name))
    private = not (method.finds_noisy_clients or method.shares_models or not_private(method, method.on_server()))
    assert (problems == []) == private
    if name == "robustfl":
        with pytest.raises(ConfigError) as caught:
            check_privacy(config, method, method.on_server())
        assert problems == [str(caught.value)]


@pytest.mark.parametrize(("key", "name", "parameter", "classes"), PARAMETERS)
def test_the_table_allows_what_the_class_allows(key: str, name: str, parameter: str, classes: Any) -> None:
    others = " ".join(pair for pair in SET.get(name, "").split() if not pair.startswith(kebab(parameter) + "="))
    for value in VALUES:
        text = f"{others} {kebab(parameter)}={value}".strip()
        try:
            build_named(key, classes, name, text)
            refused = False
        except ConfigError:
            refused = True
        values = {key: name, f"{key}-args": text, "num-server-rounds": 1000}
        problems = [problem for problem in examine(values)[1] if f"{key}-args" in problem]
        assert bool(problems) == refused, (text, problems)


@pytest.mark.parametrize("name", METHOD_CLASSES)
def test_facts_are_those_of_the_class(name: str) -> None:
    for fact in (
        "both_labels",
        "strategy",
        "networks",
        "features",
        "finds_noisy_clients",
        "loss_may_be_negative",
        "learning_rates",
    ):
        of_class = getattr(METHOD_CLASSES[name], fact)
        if isinstance(of_class, property):  # the default, or it depends on parameters
            of_class = getattr(METHOD_CLASSES[name](), fact)
        assert getattr(METHODS[name], fact) == of_class
    assert METHOD_CLASSES[name]().on_server().needs_data == bool(METHODS[name].both_labels)


def test_a_rule_without_a_source_is_named() -> None:
    from dataclasses import dataclass

    from config.parameters import parameter
    from config.rules import Rule

    @dataclass
    class Odd:
        x: float = parameter(1.0, Rule("odd", lambda value: True))

    with pytest.raises(ValueError, match=r"the rule of Odd\.x has no source"):
        known._parameters(Odd, "")


def test_an_unknown_word_is_answered_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert known.main(["--wirte"]) == 2
    assert "Usage" in capsys.readouterr().err
    assert RunConfig().method in METHODS
