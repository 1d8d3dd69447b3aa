"""What keys name, and the `key=value` pairs that come with it: methods, strategies, kinds of privacy."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from config.errors import ConfigError
from config.rules import closest
from data.arguments import parse_pairs
from data.text import one_line, shown


def parse_args(key: str, text: str) -> dict[str, Any]:
    """Read the `key=value` pairs of an ``*-args`` string; values are TOML, names may use hyphens.

    Args:
        key: The run-config key that holds `text`, for the error message.
        text: For instance ``"alpha=0.5 min-size=10"``.

    Returns:
        Python names (``min_size``) to values.
    """
    try:
        return parse_pairs(text)
    except ValueError as error:
        raise ConfigError(
            f"run config: '{key}' is {_quoted(text)}; it must be key=value pairs with TOML values, such as"
            f" \"alpha=0.5 name='text'\" ({one_line(str(error))})."
        ) from None


def build_named(key: str, table: Mapping[str, Callable[..., Any]], name: str, args_text: str) -> Any:
    """Make what `key` names: ``table[name]`` called with the pairs of ``<key>-args``.

    Raises:
        ConfigError: An unknown name or parameter (the known ones are listed), or a value that the callable refuses.
    """
    if name not in table:
        raise ConfigError(
            f"run config: '{key}' is {_quoted(name)}; it must be one of {', '.join(sorted(table))}"
            f"{closest(name, table)}."
        )
    args = parse_args(f"{key}-args", args_text)
    known = inspect.signature(table[name]).parameters
    if problem := next((unknown(key, name, argument, known) for argument in args if argument not in known), None):
        raise ConfigError(problem)
    try:
        return table[name](**args)
    except ConfigError:
        raise
    except Exception as error:  # a class of the user's may raise anything
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        raise ConfigError(
            f"run config: '{key}-args' is {_quoted(args_text)}; {name} refuses it: {kind}{one_line(str(error))}."
        ) from None


def unknown(key: str, name: str, argument: str, known: Iterable[str]) -> str:
    """The sentence about a parameter that what `key` names does not have; names as in Python."""
    names = [kebab(one) for one in known]
    return (
        f"run config: '{key}-args' names {shown(kebab(argument))}; {name} takes {', '.join(names) or 'none'}"
        f"{closest(argument, names)}."
    )


def rounds_of(share: float, rounds: int, num_rounds: int) -> int:
    """How many rounds a phase takes: `rounds`, or if that is negative, `share` of the run's, rounded half up.

    Papers give such lengths in rounds of their own protocol; as a share they fit runs of any length.
    """
    return rounds if rounds >= 0 else int(share * num_rounds + 0.5 + 1e-9)  # 0.145 * 100 is 14.499999999999998


def kebab(name: str) -> str:
    """A name as keys and parameters are written."""
    return name.replace("_", "-")


def _quoted(text: Any) -> str:
    """A value as Python writes it, but on one line that is not too long."""
    return one_line(repr(text))
