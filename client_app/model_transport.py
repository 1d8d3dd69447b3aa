"""Moves the model between messages and PyTorch; see `messages.payload` for how it travels, and `messages.clipping` for
how it is clipped before it leaves.
"""

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import ArrayRecord, Message
from torch import nn

from config.run_config import ConfigError
from learning.shared_state import shared_state
from messages.arrays import as_array
from messages.clipping import clip_update
from messages.keys import CLIENT_MODEL, METHOD_ARRAYS
from messages.payload import difference, is_packed, pack, unpack


def load(model: nn.Module, received: Mapping[str, np.ndarray]) -> None:
    """Copy the global model, as `unpack` returned it, into the memory of `model`, on any device.

    Raises:
        ValueError: Its names or shapes are not those of `model`.
    """
    state = shared_state(model)
    if state.keys() != received.keys():
        names = ", ".join(sorted(state.keys() ^ received.keys())[:3])
        raise ValueError(f"the global model and this client's do not have the same weights: {names}, ...")
    for name, value in state.items():
        new = received[name]
        if new.shape != tuple(value.shape):
            raise ValueError(f"{name!r} of the global model has shape {new.shape} instead of {tuple(value.shape)}")
        if value.device.type == "cpu":
            np.copyto(value.numpy(), new)
        else:
            value.copy_(torch.tensor(new))


def state_of(model: nn.Module) -> dict[str, np.ndarray]:
    """What travels of a model, by name; without a copy if it is on the CPU.

    A GPU puts channels-last weights into rows, in which they travel, faster than a CPU afterwards.
    """
    state = shared_state(model).items()
    return {name: (value if value.device.type == "cpu" else value.contiguous().cpu()).numpy() for name, value in state}


def answer(arrays: Mapping[str, np.ndarray], message: ArrayRecord, kind: str) -> ArrayRecord:
    """The record to send for `arrays`, packed if the global model in `message` was.

    Raises:
        ConfigError: An update is too large for the half precision `kind`.
    """
    if not is_packed(message):
        return ArrayRecord({name: as_array(value) for name, value in arrays.items()})
    try:
        return pack(arrays if kind == "fp32" else difference(arrays, unpack(message)), kind)
    except OverflowError as error:
        raise ConfigError(f"run config: 'payload' is {kind!r}, but {error}; it must be fp32 or bf16.") from None


def beside(message: Message) -> dict[str, torch.Tensor]:
    """The arrays that the server half of the method sent with the weights, float32."""
    record = message.content.array_records.get(METHOD_ARRAYS, ArrayRecord())
    return {name: torch.tensor(value) for name, value in unpack(record).items()}


def client_models(message: Message) -> dict[str, dict[str, torch.Tensor]]:
    """Other clients' models that the server half of the method sent, by its names for them, on the CPU."""
    return {
        name.removeprefix(CLIENT_MODEL): {key: torch.tensor(value) for key, value in unpack(record).items()}
        for name, record in message.content.array_records.items()
        if name.startswith(CLIENT_MODEL)
    }


def as_record(arrays: Mapping[str, torch.Tensor], *, packed: bool) -> ArrayRecord:
    """Arrays of a method, as float32; they are never rounded to a shorter format."""
    plain = {name: value.detach().float().contiguous().cpu().numpy() for name, value in arrays.items()}
    return pack(plain, "fp32") if packed else ArrayRecord({name: as_array(value) for name, value in plain.items()})


def clipped(
    model: nn.Module, received: Mapping[str, np.ndarray], clipping_norm: float
) -> tuple[dict[str, np.ndarray], bool]:
    """What the client sends instead of its model.

    Args:
        model: After training, on any device.
        received: The global model that training started from.
        clipping_norm: C.

    Returns:
        The arrays to send, and whether the update was no longer than C.
    """
    arrays = state_of(model)
    parameters = {name for name, _ in model.named_parameters()}
    sent = {name: value for name, value in received.items() if name in parameters}
    within = clip_update(arrays, sent, clipping_norm)
    return arrays, within
