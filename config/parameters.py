"""Parameters of methods and strategies: dataclass fields that carry their rule, like the run config's keys."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.rules import Rule


def parameter(default: bool | float | str, rule: Rule) -> Any:
    """A field that `method-args`, `strategy-args` or `privacy-args` may set."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def fits(value: Any, default: Any, rule: Rule) -> bool:
    """Whether a value may stand where `default` does; a whole number may for a decimal."""
    if type(default) is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    return type(value) is type(default) and rule.holds(value)


def as_type_of(default: Any, value: Any) -> Any:
    """A value that `fits`, in the type of the default."""
    return type(default)(value)


def check_parameters(owner: Any) -> None:
    """Check all fields of a dataclass that were declared with `parameter`; whole numbers become decimals for decimals.

    Raises:
        ValueError: Names the parameter and what it must be.
    """
    for field in dataclasses.fields(owner):
        rule: Rule | None = field.metadata.get("rule")
        if rule is None:
            continue
        value = getattr(owner, field.name)
        if not fits(value, field.default, rule):
            raise ValueError(f"{field.name.replace('_', '-')} must be {rule.allowed}")
        object.__setattr__(owner, field.name, as_type_of(field.default, value))  # methods are frozen


@dataclass(frozen=True)
class Parameter:
    """One parameter; a `default` that is not a number (NaN) stands for one that must be set."""

    default: bool | float | str
    rule: Rule


@dataclass(frozen=True)
class KnownMethod:
    """What the config knows of a method without importing PyTorch; see `learning.method.Method`."""

    parameters: Mapping[str, Parameter]
    strategy: str = "fedavg"
    networks: int = 1
    features: bool = False
    finds_noisy_clients: bool = False
    shares_models: bool = False
    not_private: str = ""  # see `server_app.strategy.not_private`; empty if one of the two before says it all
    loss_may_be_negative: bool = False
    both_labels: tuple[str, ...] = ()
    learning_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class KnownStrategy:
    """What the config knows of a strategy; see `server_app.strategies.fedavg.StreamingFedAvg`."""

    parameters: Mapping[str, Parameter]
    by_number: bool = True
    takes_one_mean: bool = False
