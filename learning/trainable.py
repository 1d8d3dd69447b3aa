"""Which weights of a network train and travel."""

from dataclasses import dataclass

from config.parameters import check_parameters, parameter
from config.rules import TARGETS, at_least, interval, true_or_false


@dataclass(frozen=True)
class All:
    """Every weight."""


@dataclass(frozen=True)
class Head:
    """The last layer, and further heads of the method."""


@dataclass(frozen=True)
class Lora:
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

    def __post_init__(self) -> None:
        check_parameters(self)


Trainable = All | Head | Lora
TRAINABLES: dict[str, type[Trainable]] = {"all": All, "head": Head, "lora": Lora}
