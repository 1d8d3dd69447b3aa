"""Which methods, strategies and other settings are incompatible, and why; checked before a run starts."""

from flwr.serverapp.strategy import Strategy

from config.run_config import ConfigError, RunConfig
from methods import METHODS, Method


def check_combination(config: RunConfig, method: Method, strategy: Strategy) -> None:
    """Check that the run's method goes with the rest of its config.

    Raises:
        ConfigError: It does not; the sentence names the reason, and what would work.
    """
    name = config.method
    if method.networks > 1 and not getattr(strategy, "by_number", True):
        _refuse_strategy(
            config,
            f"'method' is {name!r}, which trains {method.networks} networks that must not be mixed, and this strategy"
            " measures distances between whole models; it must be one that works coordinate by coordinate, such as"
            " fedavg, fedadam or fedmedian",
        )
    if config.strategy == "daagg" and not method.finds_noisy_clients:
        _refuse_strategy(
            config,
            f"'method' is {name!r}, which does not tell noisy clients from clean ones; it must be another one, or"
            f" the method {' or '.join(one for one, cls in METHODS.items() if cls.finds_noisy_clients)}",
        )
    if config.strategy == "qfedavg" and (method.loss_may_be_negative or method.finds_noisy_clients):
        # It weights each client by a power of its loss.
        why = "may be negative" if method.loss_may_be_negative else "is not the same function on all clients"
        _refuse_strategy(
            config,
            f"'method' is {name!r}, whose loss {why}, and q-FedAvg weights clients by a power of their loss; it must"
            " be another strategy",
        )
    if config.privacy != "none" and method.finds_noisy_clients:
        raise ConfigError(
            f"run config: 'privacy' is {config.privacy!r}, but 'method' is {name!r}, for which clients send their loss"
            " on each class without noise; 'privacy' must be none, or 'method' another one."
        )


def _refuse_strategy(config: RunConfig, why: str) -> None:
    raise ConfigError(f"run config: 'strategy' is {config.strategy!r}, but {why}.")
