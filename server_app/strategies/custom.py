"""Loads a strategy that the user names as ``"module:Class"``: any class derived from Flower's `Strategy`.

Unless the class sets `handles_batchnorm` to True, it sees parameters only: see `parameters_only`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from flwr.serverapp.strategy import Strategy

from config.own_class import own_class
from server_app.strategies.parameters_only import with_buffers_apart

# The app itself samples, names records and reads metrics; a strategy that did so differently would not work with it.
SET_BY_THE_APP = {
    "fraction_train", "fraction_evaluate", "weighted_by_key", "arrayrecord_key", "configrecord_key",
    "train_metrics_aggr_fn", "evaluate_metrics_aggr_fn",
}  # fmt: skip


def load_class(name: str) -> Callable[..., Strategy]:
    """Import the class; its signature lists what `strategy-args` may set.

    Args:
        name: ``"module:Class"``, see `own_class`.

    Raises:
        ConfigError: There is no such module or class, or it is not a strategy.
    """
    found = own_class("strategy", name, Strategy)
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
