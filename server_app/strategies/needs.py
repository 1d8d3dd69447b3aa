"""What a strategy needs of a federation and of the server's memory, said before round 1."""

import re
from logging import INFO, WARNING
from pathlib import Path

from flwr.common import log
from flwr.serverapp.strategy import Strategy
from torch import nn

from config import ConfigError, RunConfig
from server_app.strategies import Sized
from server_app.strategies.private import Private

MIB = 1 << 20


def check_needs(config: RunConfig, strategy: Strategy, clients: int, model: nn.Module) -> None:
    """Log what a round takes at most, if the strategy holds all replies; warn if this machine has less.

    Raises:
        ConfigError: The strategy needs more replies than a round will have, or more noise than they allow.
    """
    sampled = max(int(clients * getattr(strategy, "fraction_train", 1.0)), getattr(strategy, "min_train_nodes", 1))
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
    free = available_memory()
    if free is not None and needed > free:
        log(
            WARNING,
            "This machine has %d MiB free: the run may be killed for lack of memory. Sample fewer clients, take a"
            " smaller model, or a strategy that adds replies up, such as fedavg.",
            free / MIB,
        )


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
