"""What methods do on the server: one file for each that does more there than averaging, and their names."""

import inspect
from collections.abc import Callable
from dataclasses import replace

from config import ConfigError, RunConfig, parse_args
from server_app.methods.co_teaching import CoTeaching
from server_app.methods.forward import Forward
from server_app.methods.server_half import ServerHalf
from server_app.methods.two_stages import TwoStagesOnServer

__all__ = ["SERVER_HALVES", "ServerHalf", "make_server_half", "with_own_strategy"]

AUTO = "auto"  # of `strategy`
SERVER_HALVES: dict[str, Callable[..., ServerHalf]] = {
    "co-teaching": CoTeaching,
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
