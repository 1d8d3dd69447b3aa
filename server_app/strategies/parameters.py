"""Parameters of strategies: dataclass fields that carry what they allow, as the run config's keys do."""

import dataclasses
from typing import Any

from config.rules import Rule


def parameter(default: float | str, rule: Rule) -> Any:
    """A field of a strategy, which `strategy-args` may set."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def check_parameters(strategy: Any) -> None:
    """Check all fields of a dataclass that are declared with `parameter`; whole numbers pass for decimals.

    Raises:
        ValueError: The parameter and what it must be.
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
