"""Clipping of an update before it leaves the client; `privacy` has the formula."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from client_app.transport import state_of
from privacy import clip_update


def clipped(
    model: nn.Module, received: Mapping[str, np.ndarray], clipping_norm: float
) -> tuple[dict[str, np.ndarray], bool]:
    """What the client sends instead of its model.

    Args:
        model: After training, on any device.
        received: The global model that training began with.
        clipping_norm: C.

    Returns:
        The arrays to send, and whether the update was no longer than C.
    """
    arrays = state_of(model)
    parameters = {name for name, _ in model.named_parameters()}
    sent = {name: value for name, value in received.items() if name in parameters}
    within = clip_update(arrays, sent, clipping_norm)
    return arrays, within
