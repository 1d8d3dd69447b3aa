"""Which values settings and parameters may have, and how messages describe them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value must satisfy.

    Attributes:
        allowed: Completes the sentence "it must be ...".
        holds: Whether a value satisfies it.
        short: What the settings page says instead of `allowed`, in Markdown; empty if that will do.
    """

    allowed: str
    holds: Callable[[Any], bool]
    short: str = ""


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

    return Rule("a number " + " and ".join(sides), holds, short=" and ".join(sides))


def one_of(*choices: str) -> Rule:
    return Rule("one of " + ", ".join(choices), lambda value: value in choices)


def described(choices: Mapping[str, str]) -> str:
    """Names, each with its few words in brackets if it has any."""
    return ", ".join(f"{name} ({words})" if words else name for name, words in choices.items())


def choice(choices: Mapping[str, str]) -> Rule:
    """One of the names of a table in `config.choices`."""
    return Rule(one_of(*choices).allowed, lambda value: value in choices, short=described(choices))


def text(short: str) -> Rule:
    """Any text: what it says is checked where it is read, and `short` tells the settings page what is allowed there."""
    return Rule("text", lambda value: True, short)


def true_or_false() -> Rule:
    """No value of another type gets as far as a rule."""
    return Rule("true or false", lambda value: True)


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


def is_absolute(path: str) -> bool:
    """Whether a path is absolute, with the user's home folder in place of ``~``, if there is one."""
    try:
        return Path(path).expanduser().is_absolute()
    except RuntimeError:
        return False


def path_or_empty() -> Rule:
    return Rule(
        "an absolute path (or one in your home folder, ~), because Flower runs the app in another folder than yours",
        lambda value: not value or is_absolute(value),
        short="an absolute path, or one that starts with `~`",
    )


NAME = Rule(
    "a plain folder name of letters, digits, '.', '_' and '-'",
    lambda value: re.fullmatch(r"(?!\.\.?$)[\w.-]*", value) is not None,
)
RESUMABLE = Rule(
    "auto, or the absolute path of a run's folder or of a checkpoint in it",
    lambda value: value in ("", "auto") or is_absolute(value),
)
WEIGHTS = Rule(
    "none, imagenet, or the absolute path of a .safetensors, .pt or .pth file",
    lambda value: (
        value in ("none", "imagenet") or (Path(value).suffix in (".safetensors", ".pt", ".pth") and is_absolute(value))
    ),
)
