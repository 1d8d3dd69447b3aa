"""A network that a client keeps for itself between visits, such as an exponential mean of the ones that it trained.

It lies in the client's state file, for clients that have been sampled; a ResNet-50 takes 94 MB there.
"""

import copy

import torch
from torch import Tensor, nn

from learning.shared_state import load_shared, shared_state

PREFIX = "own/"  # of its weights' names in `Visit.state`


def own_network(received: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The network that the client's last visit left in `state`, which loses it; at the first visit a copy.

    Returns:
        It needs no gradients, and is in evaluation mode.
    """
    own = copy.deepcopy(received).eval().requires_grad_(False)
    kept = {name.removeprefix(PREFIX): state.pop(name) for name in list(state) if name.startswith(PREFIX)}
    if kept:
        load_shared(own, kept)
    return own


def keep_own(own: nn.Module, state: dict[str, Tensor]) -> None:
    """Put its weights into `state`, for the client's next visit; those that never change are not kept."""
    state.update({PREFIX + name: value for name, value in shared_state(own).items()})


@torch.no_grad()
def follow(own: nn.Module, network: nn.Module, decay: float) -> None:
    """``own <- decay * own + (1 - decay) * network``, weights and BatchNorm's statistics; counters are copied."""
    mine, theirs = shared_state(own), shared_state(network)
    floats = [name for name, value in mine.items() if value.is_floating_point()]
    # One kernel for all tensors, as in torch's optimisers.
    torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], 1 - decay)
    for name, value in mine.items():
        if not value.is_floating_point():
            value.copy_(theirs[name])
