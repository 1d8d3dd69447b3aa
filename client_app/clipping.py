"""Clipping of an update before it leaves the client; `privacy` has the formula."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from privacy import clip_update


def clipped(model: nn.Module, received: ArrayRecord, clipping_norm: float) -> tuple[ArrayRecord, bool]:
    """What the client sends instead of its model.

    Args:
        model: After training, on any device.
        received: The global model that training began with.
        clipping_norm: C.

    Returns:
        The arrays to send, and whether the update was no longer than C.
    """
    state: Mapping[str, Tensor] = model.state_dict()
    arrays: dict[str, np.ndarray] = {name: value.cpu().numpy() for name, value in state.items()}
    parameters = {name for name, _ in model.named_parameters()}
    sent = {name: received[name].numpy() for name in received if name in parameters}
    within = clip_update(arrays, sent, clipping_norm)
    return ArrayRecord({name: Array(value) for name, value in arrays.items()}), within
