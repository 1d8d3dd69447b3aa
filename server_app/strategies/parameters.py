"""Parameters of strategies: dataclass fields that carry their rule, like the run config's keys."""

import dataclasses
from typing import Any

from config.rules import Rule


def parameter(default: float | str, rule: Rule) -> Any:
    """A field of a strategy that `strategy-args` may set."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def check_parameters(strategy: Any) -> None:
    """Check all dataclass fields declared with `parameter`; an integer is accepted for a float.

    Raises:
        ValueError: Names the parameter and what it must be.
    """
    for field in dataclasses.fields(strategy):
        rule: Rule | None = field.metadata.get("rule")
        if rule is None:
            continue
        value = getattr(strategy, field.name)
        wanted = type(field.default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted or not rule.holds(value):
            raise ValueError(f"{field.name.replace('_', '-')} must be {rule.allowed}")
        setattr(strategy, field.name, value)
