"""A class of the user's own, which a run-config key names as ``"module:Class"``."""

import importlib
import inspect
import re
import traceback
from typing import Any

from config.errors import ConfigError
from data.text import one_line

EXAMPLE = "custom.mine:Mine"
_NAME = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


def own_class(key: str, name: str, base: type) -> type[Any]:
    """Import the class.

    Args:
        key: Of the run config.
        name: ``"module:Class"``, importable from the app's folder (which has ``custom`` for this) or the environment.
        base: What it must derive from and implement.

    Raises:
        ConfigError: There is no such module or class, the module raises an error, or the class is another one.
    """
    start, (module_name, class_name) = f"run config: '{key}' is {name!r}", module_and_class(key, name)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's file raises
        raise ConfigError(f"{start}, but {module_name!r} cannot be imported: {_what_and_where(error)}.") from None
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, base)) or found is base or inspect.isabstract(found):
        raise ConfigError(
            f"{start}; {class_name!r} must be a class of {module_name} that derives from {_place(base)} and implements"
            " it."
        )
    return found


def module_and_class(key: str, name: str) -> tuple[str, str]:
    """The two parts of a name, neither of which is looked for.

    Raises:
        ConfigError: It is no such name.
    """
    if not (parts := _NAME.fullmatch(name)):
        raise ConfigError(
            f"run config: '{key}' is {one_line(repr(name))}; a class of your own must be named as 'module:Class', such"
            f" as '{EXAMPLE}'."
        )
    return parts[1], parts[2]


def _what_and_where(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return one_line(f"{error}; files of your own belong into the app's folder custom/")
    if isinstance(error, SyntaxError):
        return one_line(f"{error}")
    (last,) = traceback.extract_tb(error.__traceback__)[-1:]
    return one_line(f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})", 400)


def _place(base: type) -> str:
    """Where users import a base class from: the package, where its modules are not for them."""
    module = base.__module__.removesuffix(".strategy") if base.__module__.startswith("flwr.") else base.__module__
    return f"{module}.{base.__name__}"
