"""What values of settings and parameters are allowed, and how that is said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value must satisfy: `allowed` completes the sentence "it must be ..."."""

    allowed: str
    holds: Callable[[Any], bool]


def at_least(low: int) -> Rule:
    return Rule(f"a whole number of at least {low}", lambda value: value >= low)


def interval(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Rule:
    """Numbers between `low` and `high`, each end included unless it is open."""
    sides = [f"{'above' if open_low else 'at least'} {low:g}"]
    if high < float("inf"):
        sides.append(f"{'below' if open_high else 'at most'} {high:g}")

    def holds(value: float) -> bool:
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        return above and below and value < float("inf")

    return Rule("a number " + " and ".join(sides), holds)


def one_of(*choices: str) -> Rule:
    return Rule("one of " + ", ".join(choices), lambda value: value in choices)


def check_number(name: str, value: Any, rule: Rule) -> None:
    """Refuse a parameter of a method that is no number or breaks its rule.

    Args:
        name: As `method-args` spells it.
        value: Whatever was given.
        rule: What numbers are allowed.

    Raises:
        ValueError: The parameter and what it must be.
    """
    if type(value) not in (int, float) or not rule.holds(value):
        raise ValueError(f"{name} must be {rule.allowed}")


def path_or_empty() -> Rule:
    return Rule(
        "an absolute path (or one that starts with ~), because Flower runs the app in another folder than yours",
        lambda value: not value or Path(value).expanduser().is_absolute(),
    )
