"""Low-rank adapters beside frozen weights (LoRA, Hu et al., ICLR 2022, arXiv 2106.09685).

    W + alpha / rank B A,    W (outputs, inputs),    A (rank, inputs),    B (outputs, rank)

A convolution's weight counts as (outputs, inputs x height x width). A starts uniformly distributed within one over the
root of its inputs, as PyTorch's linear layers do, and B at zero, so that the network starts as it was. PyTorch's own
`torch.nn.utils.parametrize` puts them in, which serves any weight of any architecture, such as the joint projection of
`nn.MultiheadAttention`, for which there is no layer.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from config.errors import ConfigError
from data.text import shown
from task import HEADS, classifier

AUTO = "auto"
# How attention's projections are called by torchvision and timm, joint ones first.
PROJECTIONS = frozenset(
    (
        "qkv",
        "to_qkv",
        "q",
        "k",
        "v",
        "kv",
        "q_proj",
        "k_proj",
        "v_proj",
        "query",
        "key",
        "value",
        "to_q",
        "to_k",
        "to_v",
    )
)
JOINT = "in_proj_weight"  # of `nn.MultiheadAttention`
SHOWN = 6  # names in a sentence


class Adapter(nn.Module):
    """``W -> W + alpha / rank B A``."""

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        """Draw A from `generator`.

        Args:
            weight: W; all of its dimensions but the first count as inputs.
            rank: Of the product.
            alpha: See above.
            generator: On the CPU.
        """
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        bound = inputs**-0.5
        self.a = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).mul(self.scale).reshape(weight.shape)


def insert_adapters(
    network: nn.Module, rank: int, alpha: float, targets: str, generator: torch.Generator
) -> list[Adapter]:
    """Put an adapter beside each of the weights that `targets` means, in the network's order.

    Args:
        network: Changed in place; its other weights stay as they are.
        rank: Of each adapter, or the weight's own largest rank if that is smaller.
        alpha: Scale, before it is divided by `rank`.
        targets: See `learning.trainable.Lora`.
        generator: On the CPU.

    Raises:
        ConfigError: A name fits no layer.
    """
    adapters = []
    for layer, name in _chosen(network, targets):
        weight: Tensor = getattr(layer, name)
        adapter = Adapter(weight.detach(), min(rank, *weight.flatten(1).shape), alpha, generator)
        parametrize.register_parametrization(layer, name, adapter)
        adapters.append(adapter)
    return adapters


def _chosen(network: nn.Module, targets: str) -> list[tuple[nn.Module, str]]:
    """Layers with the name of the weight in each that gets an adapter."""
    known = {path: (layer, name) for path, layer, name in _weights(network)}
    if targets == AUTO:
        attention = [path for path, (_, name) in known.items() if name == JOINT or _last(path) in PROJECTIONS]
        return [known[path] for path in attention or known if attention or not _is_depthwise(known[path][0])]
    chosen: set[str] = set()
    for pattern in targets.split(","):
        regex = re.compile(".*".join(map(re.escape, pattern.split("*"))))
        found = {path for path in known if regex.fullmatch(path)}
        if not found:
            some = ", ".join(list(known)[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            raise ConfigError(
                f"run config: 'trainable-args' has the targets {shown(targets)}, but no layer that can have an adapter"
                f" is called {shown(pattern)}; they must be auto, or names such as {some}, without the last layer."
            )
        chosen |= found
    return [place for path, place in known.items() if path in chosen]


def _weights(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, layer and weight's name of all that can have an adapter: not the last layer, which trains itself."""
    last = classifier(network)
    for path, layer in network.named_modules():
        if layer is last or path.partition(".")[0] == HEADS:
            continue
        if isinstance(layer, nn.MultiheadAttention):
            if layer.in_proj_weight is not None:
                yield path, layer, JOINT
        elif isinstance(layer, (nn.Linear, nn.Conv2d)):
            yield path, layer, "weight"


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels


def _last(path: str) -> str:
    return path.rpartition(".")[2]
