"""Which weights of a network train, and with that which travel (`learning.shared_state`)."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from config.parameters import check_parameters, parameter
from config.rules import TARGETS, at_least, interval, true_or_false
from learning.frozen import freeze_statistics, keep_evaluating
from learning.lora import insert_adapters
from learning.shared_state import TRAINED
from task import HEADS, classifier


@dataclass(frozen=True)
class Trainable:
    """Every weight."""

    def __post_init__(self) -> None:
        check_parameters(self)

    def prepare(self, network: nn.Module, generator: torch.Generator) -> None:
        """Freeze what does not train, and add what trains instead, in place.

        Args:
            network: With its initial weights, on the CPU.
            generator: Source of whatever is drawn.

        Raises:
            ConfigError: The network does not have what the parameters name.
        """


@dataclass(frozen=True)
class Head(Trainable):
    """The last layer, and further heads of the method, on features that never change.

    The rest is in evaluation mode: BatchNorm uses the statistics that it came with, and nothing is dropped.
    """

    def prepare(self, network: nn.Module, generator: torch.Generator) -> None:
        _freeze(network)
        for module in network.modules():
            keep_evaluating(module)


@dataclass(frozen=True)
class Lora(Trainable):
    """Low-rank adapters in a frozen network (LoRA, Hu et al., ICLR 2022), beside its last layer.

        W + alpha / rank B A,    A (rank, inputs) random, B (outputs, rank) zero at first

    Attributes:
        rank: Of each adapter.
        alpha: Scale of the adapters, before it is divided by the rank.
        targets: ``auto``: the projections of attention into queries, keys and values, or where there is no attention,
            every convolution and linear layer but depthwise ones. Otherwise names of layers as in the network, with
            ``*`` for any characters, separated by commas.
        freeze_a: Whether only B trains (FFA-LoRA, Sun et al., ICLR 2024): the mean of the clients' B is then that of
            their updates, and noise for privacy is not multiplied.
    """

    rank: int = parameter(8, at_least(1, 1024))
    alpha: float = parameter(16.0, interval(0, open_low=True))
    targets: str = parameter("auto", TARGETS)
    freeze_a: bool = parameter(False, true_or_false())

    def prepare(self, network: nn.Module, generator: torch.Generator) -> None:
        adapters = insert_adapters(network, self.rank, self.alpha, self.targets, generator)
        trained = {id(value) for one in adapters for value in ((one.b,) if self.freeze_a else (one.a, one.b))}
        _freeze(network, trained)
        freeze_statistics(network)


TRAINABLES: dict[str, type[Trainable]] = {"all": Trainable, "head": Head, "lora": Lora}


def _freeze(network: nn.Module, trained: Collection[int] = ()) -> None:
    """Let nothing train but the last layer, further heads, and the parameters with these ids."""
    outputs = set(map(id, classifier(network).parameters()))
    names = []
    for name, value in network.named_parameters():
        trains = id(value) in trained or id(value) in outputs or name.startswith(f"{HEADS}.")
        value.requires_grad_(trains)
        if trains:
            names.append(name)
    setattr(network, TRAINED, frozenset(names))
