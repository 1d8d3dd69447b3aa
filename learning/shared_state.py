"""What server and clients send each other of a network, and what stays where it is.

If all weights train, all parameters and BatchNorm's buffers travel. Otherwise only the parameters that train do; the
frozen rest is built on each side, from the same seed or file, and compared by its hash. Other buffers, such as Swin's
table of positions, are constants of an architecture and never travel.
"""

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from task import networks_of

TRAINED = "trained_names"  # of a network with a frozen rest: the names of what trains
ORIGINAL = ".original"  # of a weight with an adapter: its frozen part


def shared_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that travel, by name, in the order of the model's `state_dict`, in its memory."""
    names = shared_names(model)
    return {name: value for name, value in model.state_dict().items() if name in names}


def shared_names(model: nn.Module) -> set[str]:
    """The names of `shared_state`."""
    names: set[str] = set()
    for prefix, network in _networks(model):
        trained: frozenset[str] | None = getattr(network, TRAINED, None)
        if trained is None:
            trained = frozenset(name for name, _ in network.named_parameters()) | batchnorm_buffers(network)
        names |= {prefix + name for name in trained}
    return names


def load_shared(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy what `shared_state` returned, of another copy of this model, into the memory of `model`.

    Raises:
        ValueError: Its names are others.
    """
    own = shared_state(model)
    if own.keys() != state.keys():
        raise ValueError(f"the weights are those of another network ({min(own.keys() ^ state.keys())!r})")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def frozen_digest(model: nn.Module) -> str:
    """16 hex digits of a hash of all that does not travel, of a network with a frozen rest; else empty."""
    if all(not hasattr(network, TRAINED) for _, network in _networks(model)):
        return ""
    shared, seen = shared_names(model), hashlib.sha256()
    for name, value in model.state_dict().items():
        if name not in shared:
            array = value.detach().contiguous().cpu().numpy()
            seen.update(f"{name} {array.dtype} {array.shape}\0".encode())
            seen.update(memoryview(array.reshape(-1)).cast("B"))
    return seen.hexdigest()[:16]


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The whole network under the names that it has without adapters, which are merged into their weights."""
    merged: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:
                merged[f"{path}.parametrizations.{name}"] = getattr(module, name).detach()
    plain = {}
    for name, value in model.state_dict().items():
        place = name.rpartition(".")[0]
        if place in merged and name.endswith(ORIGINAL):
            plain[place.replace(".parametrizations.", ".")] = merged[place]
        elif place.rpartition(".")[0] not in merged:
            plain[name] = value
    return plain


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """By name, all layers of BatchNorm, of whatever dimension."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}


def batchnorm_names(model: nn.Module) -> frozenset[str]:
    """The names of BatchNorm's weights and buffers in the model's `state_dict`."""
    return frozenset(f"{path}.{name}" for path, layer in batchnorm_layers(model).items() for name in layer.state_dict())


def batchnorm_buffers(model: nn.Module) -> frozenset[str]:
    """The names of BatchNorm's running statistics and counters."""
    found = batchnorm_layers(model).items()
    return frozenset(f"{path}.{name}" for path, layer in found for name, _ in layer.named_buffers(recurse=False))


def _networks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each network with what stands before its names in the model's."""
    networks = networks_of(model)
    for number, network in enumerate(networks):
        yield ("" if network is model else f"networks.{number}."), network
