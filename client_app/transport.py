"""The model in and out of a client's messages; `payload` says how it travels."""

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import nn

from config import ConfigError
from payload import difference, is_packed, pack, unpack


def load(model: nn.Module, received: Mapping[str, np.ndarray]) -> None:
    """Give `model`, on any device, the global model as `unpack` read it."""
    model.load_state_dict({name: torch.from_numpy(value) for name, value in received.items()})


def state_of(model: nn.Module) -> dict[str, np.ndarray]:
    """All of a model's state by name; on the CPU without a copy."""
    return {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def answer(arrays: Mapping[str, np.ndarray], message: ArrayRecord, kind: str) -> ArrayRecord:
    """What to send for `arrays`, in the way in which the global model came in `message`.

    Raises:
        ConfigError: An update is too large for the half precision `kind`.
    """
    if not is_packed(message):
        return ArrayRecord({name: Array(value) for name, value in arrays.items()})
    try:
        return pack(arrays if kind == "fp32" else difference(arrays, unpack(message)), kind)
    except OverflowError as error:
        raise ConfigError(f"run config: 'payload' is {kind!r}, but {error}; it must be fp32 or bf16.") from None
