"""`normalization-args`: the numbers of `normalization='release'`, given by the user or measured by the server."""

import contextlib
from typing import Any

from config.errors import ConfigError
from config.named import parse_args, unknown
from config.run_config import RunConfig
from data.normalization import NORMALIZATIONS, NUMBERS, Normalization
from data.text import one_line

KEY = "normalization-args"
MEASURED = "release"  # the value of `normalization` whose numbers stand in the config


def normalization_of(config: RunConfig) -> Normalization:
    """The numbers by which a run normalises its inputs.

    Raises:
        ConfigError: They are to be measured, and the server has not put them into this config.
    """
    if config.normalization != MEASURED:
        return NORMALIZATIONS[config.normalization]
    if (numbers := given_normalization(config.normalization_args)) is None:
        raise ConfigError(
            f"run config: 'normalization' is '{MEASURED}', but '{KEY}' has no mean and deviation; they are measured"
            " when a run starts."
        )
    return numbers


def given_normalization(text: str) -> Normalization | None:
    """What `normalization-args` says; None if nothing.

    Raises:
        ConfigError: It is not what it must be.
    """
    args = parse_args(KEY, text)
    if not args:
        return None
    for name in args:
        if name not in NUMBERS:
            raise ConfigError(unknown("normalization", MEASURED, name, NUMBERS))
    if missing := [name for name in NUMBERS if name not in args]:
        raise ConfigError(
            f"run config: '{KEY}' is {one_line(repr(text))}, without {missing[0]}; it must give both mean and"
            " deviation, or neither: then the server measures them."
        )
    try:
        return Normalization.of(args)
    except ValueError as error:
        raise ConfigError(f"run config: '{KEY}' is {one_line(repr(text))}; {error}.") from None


def problem_of_normalization(config: RunConfig) -> str | None:
    """Why `normalization-args` cannot be what it is, in one sentence; None if it can."""
    if config.normalization != MEASURED:
        if not config.normalization_args.strip():
            return None
        return (
            f"run config: '{KEY}' is {one_line(repr(config.normalization_args))}, but 'normalization' is"
            f" {config.normalization!r}, whose numbers are known; it must be empty, or 'normalization' release."
        )
    try:
        given_normalization(config.normalization_args)
    except ConfigError as error:
        return str(error)
    return None


def lead_to(asked: Any, recorded: Any) -> bool:
    """Whether a run whose `normalization-args` is `asked` can have become one that recorded `recorded`.

    Nothing asks for whatever is measured; numbers ask for the same numbers, however they are written.
    """
    if not (isinstance(asked, str) and isinstance(recorded, str)):
        return False
    with contextlib.suppress(ConfigError):
        wanted = given_normalization(asked)
        return wanted is None or wanted == given_normalization(recorded)
    return False
