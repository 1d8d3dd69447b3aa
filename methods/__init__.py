"""How a client learns: one file per method, and the table of their names; docs/adding-a-method.md adds one."""

import inspect
from collections.abc import Callable
from dataclasses import replace

from config.run_config import ConfigError, RunConfig, parse_args
from learning.method import Method
from methods._server_forward import Forward
from methods._server_two_stages import TwoStagesOnServer
from methods.ce import CrossEntropy
from methods.co_teaching import CoTeaching, CoTeachingOnServer
from methods.elr import EarlyLearningRegularisation
from methods.feddecorr import Decorrelation
from methods.fedelc import FedELC
from methods.fedlsr import LocalSelfRegularisation
from methods.fednoro import FedNoRo
from methods.forward import ForwardCorrection
from methods.gce import GeneralizedCrossEntropy
from methods.sce import SymmetricCrossEntropy
from methods.server_half import ServerHalf

__all__ = ["METHODS", "SERVER_HALVES", "Method", "ServerHalf", "make_server_half", "with_own_strategy"]

METHODS: dict[str, Callable[..., Method]] = {
    "ce": CrossEntropy,
    "sce": SymmetricCrossEntropy,
    "gce": GeneralizedCrossEntropy,
    "forward": ForwardCorrection,
    "feddecorr": Decorrelation,
    "elr": EarlyLearningRegularisation,
    "fedlsr": LocalSelfRegularisation,
    "co-teaching": CoTeaching,
    "fednoro": FedNoRo,
    "fedelc": FedELC,
}

AUTO = "auto"  # of `strategy`
SERVER_HALVES: dict[str, Callable[..., ServerHalf]] = {
    "co-teaching": CoTeachingOnServer,
    "forward": Forward,
    "fednoro": TwoStagesOnServer,
    "fedelc": TwoStagesOnServer,
}


def make_server_half(config: RunConfig) -> ServerHalf:
    """The server's half of the run's method, with those of `method-args` that concern it.

    Whether there is such a method, and whether it takes the others, is for the clients to say at the roll call.

    Raises:
        ConfigError: A value that it refuses.
    """
    half = SERVER_HALVES.get(config.method)
    if half is None:
        return ServerHalf()
    known = inspect.signature(half).parameters
    given = parse_args("method-args", config.method_args)
    try:
        return half(**{name: value for name, value in given.items() if name in known})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"run config: 'method-args' is {config.method_args!r}; {config.method} refuses it: {error}."
        ) from None


def with_own_strategy(config: RunConfig) -> RunConfig:
    """The config with `strategy` named: the method's own, if it was left to it."""
    if config.strategy != AUTO:
        return config
    half = SERVER_HALVES.get(config.method, ServerHalf)
    return replace(config, strategy=getattr(half, "strategy", ServerHalf.strategy))
