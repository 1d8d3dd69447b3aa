"""What the server does for a method besides averaging: hooks of the round loop, each of which does nothing by default.

They are the counterpart of `learning.method`, and like it know nothing of Flower: a model is a mapping of names to
arrays.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from config.run_config import RunConfig
from data.release import Release
from learning.schema import Schema

Told = bool | int | float | str | list[float]
# Sends the model to every client and runs an action of its ClientApp ("query.<action>"); returns the metrics of those
# that answer, by partition.
Ask = Callable[[str, Any], Mapping[int, Mapping[str, Any]]]


class ServerHalf:
    """Hooks of the round loop; `Method.on_server` makes one per run."""

    def prepare(self, config: RunConfig, release: Release) -> None:
        """Before the roll call: read what is needed from the server's own data.

        Raises:
            ConfigError: Something needed is missing.
        """

    def before_round(self, server_round: int, arrays: Any, ask: Ask) -> None:
        """Before the messages of a round go out; `arrays` is the model that they carry, for `ask` to send."""

    def answers(self, classes: int, images: int) -> Mapping[str, Schema]:
        """By action, what a client's answer to `ask` must hold; one with anything else counts as none.

        Args:
            classes: C.
            images: How many images that client holds.
        """
        return {}

    def tell(self, partition: int) -> dict[str, Told]:
        """What goes to one client with this round's message, as `Visit.told`."""
        return {}

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        """After aggregation: the metrics of each usable reply, by partition, including what the client half sent."""

    def metrics(self, server_round: int) -> dict[str, float]:
        """What this half adds to the round's line in metrics.jsonl."""
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """All that later rounds depend on, for checkpoints."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned."""
