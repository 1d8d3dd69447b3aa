"""What a run could do better: sentences about settings that are allowed, and that nobody may have chosen."""

from collections.abc import Container
from typing import Any

from config.run_config import RunConfig


def advice_on_learning_rate(config: RunConfig, method: Any, set_by_user: Container[str]) -> list[str]:
    """A sentence if the run's method suits another learning rate than its preset sets.

    Args:
        config: The run's.
        method: It, or what `config.known` says of it.
        set_by_user: The keys that the user set; whoever sets a learning rate has chosen it.

    Methods know rates of SGD alone.
    """
    suited = method.learning_rates.get(config.preset)
    if config.optimizer != "sgd" or suited is None or "learning-rate" in set_by_user or config.learning_rate == suited:
        return []
    return [
        f"'method' is {config.method!r}, which suits a 'learning-rate' of {suited:g} with 'preset'"
        f" {config.preset!r}; it is {config.learning_rate:g} (docs/methods.md says why)."
    ]
