"""What a run could do better: sentences about settings that are allowed, and that nobody may have chosen."""

from collections.abc import Container
from typing import Any

from config.run_config import RunConfig


def advice_on_learning_rate(config: RunConfig, method: Any, set_by_user: Container[str]) -> list[str]:
    """A sentence if the run's method or optimiser suits another learning rate than the one that nobody chose.

    Args:
        config: The run's.
        method: It, or what `config.known` says of it.
        set_by_user: The keys that the user set; whoever sets a learning rate has chosen it.

    Methods and presets know rates of SGD alone.
    """
    if "learning-rate" in set_by_user:
        return []
    if config.optimizer == "adamw":
        return [
            f"'optimizer' is 'adamw', but 'learning-rate' is {config.learning_rate:g}, which was chosen for sgd; adamw"
            " mostly takes 0.0001 to 0.001."
        ]
    suited = method.learning_rates.get(config.preset)
    if suited is None or config.learning_rate == suited:
        return []
    return [
        f"'method' is {config.method!r}, which suits a 'learning-rate' of {suited:g} with 'preset'"
        f" {config.preset!r}; it is {config.learning_rate:g} (docs/methods.md says why)."
    ]
