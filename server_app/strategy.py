"""A run's strategy: builds it from the config, checks before round 1 that clients and memory suffice for it, and
restores its state from a checkpoint.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from logging import INFO, WARNING

import numpy as np
from flwr.common import log
from flwr.serverapp.strategy import Strategy, strategy_utils
from torch import nn

from config.combinations import privacy_refused
from config.named import build_named, parse_args
from config.run_config import ConfigError, RunConfig
from learning.method import Method
from learning.schedule import rate_of
from learning.server_half import ServerHalf
from learning.shared_state import shared_state
from server_app.checkpoint_file import Checkpoint
from server_app.privacy.private_strategy import Private, with_privacy
from server_app.strategies import STRATEGIES, Sized, Stateful
from server_app.strategies.custom import load_class
from server_app.strategies.qfedavg import QFedAvg
from simulation.capacity import memory_bytes

MIB = 1 << 20


def make_strategy(config: RunConfig) -> Strategy:
    """The strategy that the run config asks for; it samples exactly ``fraction * clients``.

    Raises:
        ConfigError: An unknown name or parameter, or ones that do not go together.
    """
    strategy = build_strategy(config)
    for name in ("fraction_train", "fraction_evaluate"):
        fraction = getattr(config, name)
        # Flower samples int(clients * fraction), and 100 * 0.29 is 28.999999999999996.
        setattr(strategy, name, fraction and min(1.0, fraction + 1e-9))
    return with_privacy(strategy, config)


def check_privacy(config: RunConfig, method: Method, half: ServerHalf) -> None:
    """Check that `privacy` covers all that clients send, and whom the strategy samples.

    Raises:
        ConfigError: It does not.
    """
    if config.privacy != "none" and (why := not_private(method, half)):
        raise ConfigError(privacy_refused(config, why))


def not_private(method: Method, half: ServerHalf) -> str:
    """Why `privacy` would not cover all that clients send, or whom the strategy samples; empty if it would.

    It completes "'method' is ..., ".
    """
    if type(method).sends is not Method.sends:
        return "for which clients send arrays without noise beside their weights"
    if type(half).choose is not ServerHalf.choose:
        return "which chooses clients, and the guarantee is that of uniform sampling"
    if type(half).before_round is not ServerHalf.before_round:
        return "whose server half may ask clients for numbers without noise before a round"
    return ""


def build_strategy(config: RunConfig) -> Strategy:
    """The strategy of `strategy` and `strategy-args`: a name from the table, or a class as ``"module:Class"``.

    Raises:
        ConfigError: An unknown name or parameter, or a value that the strategy refuses.
    """
    name = config.strategy
    # L in the q-FedAvg paper is one over the clients' learning rate, which the run config already has for each round.
    table: dict[str, Callable[..., Strategy]] = {
        **STRATEGIES,
        "qfedavg": partial(QFedAvg, client_learning_rate=config.learning_rate),
    }
    if ":" in name:
        table[name] = load_class(name)
    elif name not in table:
        known = ", ".join(sorted(table))
        raise ConfigError(
            f"run config: 'strategy' is {name!r}; it must be one of {known}, or your own class as 'module:Class'."
        )
    strategy: Strategy = build_named("strategy", table, name, config.strategy_args)
    if isinstance(strategy, QFedAvg) and "client_learning_rate" not in parse_args(
        "strategy-args", config.strategy_args
    ):
        strategy.rate_of = partial(rate_of, config)
    return strategy


def check_needs(config: RunConfig, strategy: Strategy, clients: int, model: nn.Module) -> None:
    """Log a round's peak memory if all replies are held at once; warn if this machine has less.

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
    if not (strategy.holds_all_replies or config.max_update_ratio):
        return
    size = sum(value.nbytes for value in shared_state(model).values())
    needed = strategy.peak_bytes(size, sampled) + (0 if strategy.holds_all_replies else sampled * size)
    who = config.strategy if strategy.holds_all_replies else "max-update-ratio"
    log(INFO, "%s holds all %d replies of a round in memory: about %d MiB.", who, sampled, needed / MIB)
    free = memory_bytes("MemAvailable")
    if free is not None and needed > free:
        log(
            WARNING,
            "This machine has %d MiB free: the run may be killed for lack of memory. Sample fewer clients, or use a"
            " smaller model or a strategy that does not hold all replies, such as fedavg.",
            free / MIB,
        )


def sampled_clients(strategy: Strategy, clients: int) -> int:
    """How many of the `clients` train in a round."""
    return max(int(clients * getattr(strategy, "fraction_train", 1.0)), getattr(strategy, "min_train_nodes", 1))


@contextlib.contextmanager
def sampling_from(seed: int) -> Iterator[None]:
    """Seed that by which strategies sample clients in this block.

    Flower's draw from the module `random`, and so do its heartbeats, in a thread of their own: one that comes meanwhile
    would change who is sampled. Flower's sampling therefore gets a generator that nobody else has. The global one is
    seeded as well, for a strategy of one's own that samples by itself, and gets its state back.
    """
    state = random.getstate()
    random.seed(seed)
    strategy_utils.random = random.Random(seed)  # type: ignore[assignment, attr-defined]
    try:
        yield
    finally:
        strategy_utils.random = random  # type: ignore[attr-defined]
        random.setstate(state)


def state_of(strategy: Strategy) -> Callable[[], dict[str, np.ndarray]]:
    """A function that returns the strategy's state to save."""
    return strategy.state if isinstance(strategy, Stateful) else dict


def restore(strategy: Strategy, checkpoint: Checkpoint) -> None:
    """Load the saved state into the strategy; warn if the strategy keeps none, since it may need one.

    Raises:
        ConfigError: It is another strategy's state.
    """
    name = type(strategy).__name__
    if not isinstance(strategy, Stateful):
        if checkpoint.strategy:
            raise ConfigError(f"run config: 'resume': {name} no longer has load_state.")
        log(WARNING, "%s saves no state in checkpoints: if it remembers earlier rounds, it has forgotten them.", name)
        return
    if not checkpoint.strategy:
        return
    try:
        strategy.load_state(checkpoint.strategy)
    except ValueError as error:
        raise ConfigError(f"run config: 'resume' found the state of another strategy: {error}.") from None
