"""The strategy of a run: built from its config, with the app's sampling, and its state out of a checkpoint."""

from collections.abc import Callable
from logging import WARNING

import numpy as np
from flwr.common import log
from flwr.serverapp.strategy import Strategy

from config import ConfigError, RunConfig
from server_app.checkpoint_file import Checkpoint
from server_app.strategies import STRATEGIES, Stateful, build_strategy
from server_app.strategies.private import takes_one_mean, with_privacy


def make_strategy(config: RunConfig) -> Strategy:
    """What the run config asks for; a strategy samples exactly ``fraction * clients``.

    Raises:
        ConfigError: An unknown name or parameter, or ones that do not go together.
    """
    strategy = build_strategy(config)
    for name in ("fraction_train", "fraction_evaluate"):
        fraction = getattr(config, name)
        # Flower samples int(clients * fraction), and 100 * 0.29 is 28.999999999999996.
        setattr(strategy, name, fraction and min(1.0, fraction + 1e-9))
    return with_privacy(strategy, config, [name for name, cls in STRATEGIES.items() if takes_one_mean(cls)])


def state_of(strategy: Strategy) -> Callable[[], dict[str, np.ndarray]]:
    """What asks the strategy for the state to save."""
    return strategy.state if isinstance(strategy, Stateful) else dict


def restore(strategy: Strategy, checkpoint: Checkpoint) -> None:
    """Give the strategy the state that was saved; one that keeps none is told in the log, since it may need one.

    Raises:
        ConfigError: It is the state of another strategy.
    """
    name = type(strategy).__name__
    if not isinstance(strategy, Stateful):
        if checkpoint.strategy:
            raise ConfigError(f"run config: 'resume': {name} has no load_state any more.")
        log(WARNING, "%s has no state in checkpoints: if it remembers earlier rounds, it has forgotten them.", name)
        return
    if not checkpoint.strategy:
        return
    try:
        strategy.load_state(checkpoint.strategy)
    except ValueError as error:
        raise ConfigError(f"run config: 'resume' found the state of another strategy: {error}.") from None
