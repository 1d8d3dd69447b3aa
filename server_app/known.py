"""Writes `config/known.py`: what the config knows of methods, strategies and other choices with parameters.

    python -m server_app.known --write   after a change of a parameter, or of what a class says of itself
    python -m server_app.known --check   exit 1 if the file differs

With that file, settings are checked in a fraction of a second, before PyTorch is imported.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.parameters import KnownMethod, KnownStrategy
from config.rules import Rule
from learning.method import Method
from learning.optimizer import OPTIMIZERS
from learning.schedule import SCHEDULES
from learning.trainable import TRAINABLES
from methods import METHODS
from server_app.privacy.clipping_norms import PRIVACY
from server_app.strategies import STRATEGIES
from server_app.strategy import not_private

OTHERS: dict[str, Mapping[str, Any]] = {
    "PRIVACY": PRIVACY,
    "TRAINABLES": TRAINABLES,
    "OPTIMIZERS": OPTIMIZERS,
    "LR_SCHEDULES": SCHEDULES,
}
FILE = Path(__file__).parents[1] / "config" / "known.py"
HEAD = '''"""Methods, strategies and other choices with parameters, as their classes describe them.

`python -m server_app.known --write` writes this file, as does `make docs`; a test compares it with the classes.
"""

from math import nan

from config.parameters import KnownMethod, KnownStrategy, Parameter
from config.rules import '''


def text() -> str:
    """The file as it must be."""
    methods = _table("METHODS", METHODS, KnownMethod)
    strategies = _table("STRATEGIES", STRATEGIES, KnownStrategy)
    others = [line for name, table in OTHERS.items() for line in _parameters_of(name, table)]
    body = "\n".join([*methods, *strategies, *others, ""])
    known = ("TARGETS", "TRANSITION", "at_least", "interval", "one_of", "rounds_or_share", "true_or_false")
    rules = [name for name in known if name in body]
    return f"{HEAD}{', '.join(rules)}\n\n{body}"


def _table(name: str, classes: Mapping[str, Callable[..., Any]], known: type) -> list[str]:
    lines, usual = [f"{name} = {{"], known({})
    for key, cls in classes.items():
        facts = [
            f"        {field.name}={_value(value)},"
            for field in dataclasses.fields(known)
            if field.name != "parameters"
            and (value := _fact(cls, field.name, getattr(usual, field.name))) != getattr(usual, field.name)
            and not isinstance(value, property)  # it depends on parameters: see `problems_of_values`
        ]
        lines += [f"    {_quoted(key)}: {known.__name__}(", "        {", *_parameters(cls, " " * 12), "        },"]
        lines += [*facts, "    ),"]
    return [*lines, "}"]


def _fact(cls: Callable[..., Any], name: str, usual: object) -> object:
    if name == "not_private":
        method: Method = cls()
        return "" if method.finds_noisy_clients or method.shares_models else not_private(method, method.on_server())
    return getattr(cls, name, usual)


def _parameters_of(name: str, table: Mapping[str, Any]) -> list[str]:
    """A table of what has nothing to know but parameters."""
    lines = [f"{name}: dict[str, dict[str, Parameter]] = {{"]
    for key, made in table.items():
        fields = _parameters(made, " " * 8)
        lines += [f"    {_quoted(key)}: {{", *fields, "    },"] if fields else [f"    {_quoted(key)}: {{}},"]
    return [*lines, "}"]


def _parameters(cls: Callable[..., Any], indent: str) -> list[str]:
    return [
        f"{indent}{_quoted(field.name)}: Parameter({_value(field.default)}, {_source(cls, field)}),"
        for field in _fields(cls)
    ]


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if "rule" in field.metadata] if isinstance(cls, type) else []


def _source(cls: Any, field: dataclasses.Field[Any]) -> str:
    rule: Rule = field.metadata["rule"]
    if not rule.source:
        raise ValueError(f"the rule of {cls.__name__}.{field.name} has no source; use one of config/rules.py.")
    return rule.source.replace("'", '"') if '"' not in rule.source else rule.source


def _value(value: object) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_value(key)}: {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_value(one)}, " for one in value)[: None if len(value) == 1 else -2].strip() + ")"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--write"]:
        FILE.write_text(text(), encoding="utf-8")
    elif words != ["--check"]:
        print("Usage: python -m server_app.known --write, or --check.", file=sys.stderr)
        return 2
    elif FILE.read_text(encoding="utf-8") != text():
        print("config/known.py is not what the classes say; run `python -m server_app.known --write`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
