"""How a client learns: one file per method, and the table of their names.

A method is a frozen dataclass; its fields are its parameters (`method-args`).
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from client_app.methods.ce import CrossEntropy


class Method(Protocol):
    """What the training loop asks of a method."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            logits: (batch, classes) float32.
            labels: (batch,) int64, as the client knows them.

        Returns:
            A scalar, averaged over the batch.
        """
        ...


METHODS: dict[str, Callable[..., Method]] = {"ce": CrossEntropy}
