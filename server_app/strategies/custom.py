"""Loads a strategy that the user names as ``"module:Class"``: any class derived from Flower's `Strategy`.

Unless the class sets `handles_batchnorm` to True, it sees parameters only: see `parameters_only`.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from flwr.serverapp.strategy import Strategy

from config.run_config import ConfigError
from data.text import one_line
from server_app.strategies.parameters_only import with_buffers_apart

# The app itself samples, names records and reads metrics; a strategy that did so differently would not work with it.
SET_BY_THE_APP = {
    "fraction_train", "fraction_evaluate", "weighted_by_key", "arrayrecord_key", "configrecord_key",
    "train_metrics_aggr_fn", "evaluate_metrics_aggr_fn",
}  # fmt: skip


def load_class(name: str) -> Callable[..., Strategy]:
    """Import the class; its signature lists what `strategy-args` may set.

    Args:
        name: ``"module:Class"``, importable from the app's folder or from the environment.

    Raises:
        ConfigError: There is no such module or class, or it is not a strategy.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's file raises
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ConfigError(
            f"run config: 'strategy' is {name!r}, but {module_name!r} cannot be imported: {kind}{one_line(str(error))}."
        ) from None
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Strategy)) or inspect.isabstract(found):
        raise ConfigError(
            f"run config: 'strategy' is {name!r}; {class_name!r} must be a class of {module_name} that derives from"
            " flwr.serverapp.strategy.Strategy and implements it."
        )

    cls = found if getattr(found, "handles_batchnorm", False) else with_buffers_apart(found)

    def build(**args: Any) -> Strategy:
        strategy: Strategy = cls(**args)
        return strategy

    build.__signature__ = inspect.Signature(_parameters(found))  # type: ignore[attr-defined]
    return build


def _parameters(cls: type) -> list[inspect.Parameter]:
    """What can be set by name: the constructor's parameters, and if it takes ``**kwargs``, its base's."""
    known: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in owner.__dict__:
            continue
        parameters = list(inspect.signature(owner.__dict__["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                known.setdefault(parameter.name, parameter.replace(kind=parameter.KEYWORD_ONLY))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return [parameter for name, parameter in known.items() if name not in SET_BY_THE_APP]
