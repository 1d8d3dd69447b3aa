"""What hooks of a method get and return about one step of SGD."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class View:
    """One network's answer to one view of a batch.

    Attributes:
        inputs: (batch, 3, height, width) float32, normalised; or (batch, d) float32, features of a frozen body that the
            client has kept, see `Method.mixes`.
        logits: (batch, classes) float32, with gradients.
        features: (batch, d) float32, what goes into the classifier, with gradients; None unless `Method.features`.
    """

    inputs: Tensor
    logits: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Which images one step of SGD uses, and what it trains.

    Attributes:
        groups: (images,) int64 rows each, on the CPU. Most methods have one group; several are treated as one batch,
            which `Batch.sizes` divides.
        network: The only network that answers and is trained; None: all of them.
    """

    groups: tuple[Tensor, ...]
    network: int | None = None


@dataclass(frozen=True)
class Seen:
    """What a network is about to be trained on in a step; all of it on the visit's device.

    Attributes:
        rows: (batch,) int64, which of the client's images these are.
        labels: (batch,) int64, as in `Batch`.
        sizes: How many of them belong to each of `Step.groups`.
        network: Which one.
        inputs: One for each view, as in `View`.
    """

    rows: Tensor
    labels: Tensor
    sizes: tuple[int, ...]
    network: int
    inputs: list[Tensor]


@dataclass(frozen=True)
class Batch:
    """What a step computes its loss from; all of it on the visit's device.

    Attributes:
        rows: (batch,) int64, which of the client's images these are: 0 to n-1, the same at every visit.
        labels: (batch,) int64, as the client knows them, or as the method has relabelled them.
        views: By network, then by view; of the one network alone if `Step.network` named it.
        sizes: How many of the images belong to each of `Step.groups`, in their order.
        network: See `Step`.
    """

    rows: Tensor
    labels: Tensor
    views: list[list[View]]
    sizes: tuple[int, ...] = ()
    network: int | None = None

    @property
    def logits(self) -> Tensor:
        """(batch, classes) float32: of the first network and view, all there is for most methods."""
        return self.views[0][0].logits
