"""What a strategy needs of a federation and of the server's memory, said before round 1."""

from logging import INFO, WARNING

from flwr.common import log
from flwr.serverapp.strategy import Strategy
from torch import nn

from capacity import memory_bytes
from config import ConfigError, RunConfig
from server_app.strategies import Sized
from server_app.strategies.private import Private

MIB = 1 << 20


def check_needs(config: RunConfig, strategy: Strategy, clients: int, model: nn.Module) -> None:
    """Log what a round takes at most, if the strategy holds all replies; warn if this machine has less.

    Raises:
        ConfigError: The strategy needs more replies than a round will have, or more noise than they allow.
    """
    sampled = sampled_clients(strategy, clients)
    if not isinstance(strategy, Sized):
        return
    if sampled < strategy.least_replies:
        raise ConfigError(
            f"run config: 'strategy' is {config.strategy!r}, which needs at least {strategy.least_replies} replies a"
            f" round, but 'fraction-train' {config.fraction_train:g} samples {sampled} of {clients} clients."
        )
    if isinstance(strategy, Private):
        strategy.check(sampled)
    if not strategy.holds_all_replies:
        return
    needed = strategy.peak_bytes(sum(value.nbytes for value in model.state_dict().values()), sampled)
    log(INFO, "%s holds all %d replies of a round: about %d MiB.", config.strategy, sampled, needed / MIB)
    free = memory_bytes("MemAvailable")
    if free is not None and needed > free:
        log(
            WARNING,
            "This machine has %d MiB free: the run may be killed for lack of memory. Sample fewer clients, take a"
            " smaller model, or a strategy that adds replies up, such as fedavg.",
            free / MIB,
        )


def sampled_clients(strategy: Strategy, clients: int) -> int:
    """How many of them train in a round."""
    return max(int(clients * getattr(strategy, "fraction_train", 1.0)), getattr(strategy, "min_train_nodes", 1))
