"""Which methods, strategies and other settings make no sense together, and why; said before a run starts."""

from flwr.serverapp.strategy import Strategy

from config.run_config import ConfigError, RunConfig
from methods.server_half import ServerHalf

# q-FedAvg raises each client's loss to a power to weigh it.
NEGATIVE_LOSS = frozenset({"elr"})
LOSSES_DIFFER = frozenset({"fednoro", "fedelc"})
FINDS_NOISY_CLIENTS = ("fednoro", "fedelc")


def check_combination(config: RunConfig, half: ServerHalf, strategy: Strategy) -> None:
    """See whether the run's method goes with the rest of its config.

    Raises:
        ConfigError: It does not; the sentence says why, and what would.
    """
    method = config.method
    if half.networks > 1 and not getattr(strategy, "by_number", True):
        _refuse_strategy(
            config,
            f"'method' is {method!r}, which trains {half.networks} networks that must not be mixed, and this strategy"
            " measures how far whole models are apart; it must be one that works number by number, such as fedavg,"
            " fedadam or fedmedian",
        )
    if config.strategy == "daagg" and method not in FINDS_NOISY_CLIENTS:
        _refuse_strategy(
            config,
            f"'method' is {method!r}, which does not tell noisy clients from clean ones; it must be another one, or"
            f" the method {' or '.join(FINDS_NOISY_CLIENTS)}",
        )
    if config.strategy == "qfedavg" and method in NEGATIVE_LOSS | LOSSES_DIFFER:
        why = "may be negative" if method in NEGATIVE_LOSS else "is not the same function at all clients"
        _refuse_strategy(
            config,
            f"'method' is {method!r}, whose loss {why}, and q-FedAvg weighs clients by a power of their loss; it must"
            " be another strategy",
        )
    if config.privacy != "none" and method in FINDS_NOISY_CLIENTS:
        raise ConfigError(
            f"run config: 'privacy' is {config.privacy!r}, but 'method' is {method!r}, for which clients send losses of"
            " each class that no noise covers; it must be none, or another method."
        )


def _refuse_strategy(config: RunConfig, why: str) -> None:
    raise ConfigError(f"run config: 'strategy' is {config.strategy!r}, but {why}.")
