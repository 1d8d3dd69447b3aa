"""What a method is: hooks over the one training loop, each with a default.

A method is a frozen dataclass whose fields are its parameters (`method-args`). It defines the loss of a batch, and
overrides whatever else it needs. What changes during a visit is in the `Visit`, which each hook receives; what must
last until the client's next visit goes into ``visit.state``. Most methods need only averaging from the server; one that
needs more returns its server half from `on_server`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from config.named import rounds_of as rounds_of  # re-exported: lengths of methods in rounds
from config.parameters import check_parameters
from learning.inference import Inference
from learning.schema import Schema
from learning.server_half import ServerHalf as ServerHalf
from learning.server_half import Told as Told


@dataclass(frozen=True)
class View:
    """One network's answer to one view of a batch.

    Attributes:
        inputs: (batch, 3, height, width) float32, normalised.
        logits: (batch, classes) float32, with gradients.
        features: (batch, d) float32, what goes into the classifier, with gradients; None unless `Method.features`.
    """

    inputs: Tensor
    logits: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """What a step computes its loss from; all of it on the visit's device.

    Attributes:
        rows: (batch,) int64, which of the client's images these are: 0 to n-1, the same at every visit.
        labels: (batch,) int64, as the client knows them.
        views: By network, then by view.
    """

    rows: Tensor
    labels: Tensor
    views: list[list[View]]

    @property
    def logits(self) -> Tensor:
        """(batch, classes) float32: of the first network and view, all there is for most methods."""
        return self.views[0][0].logits


@dataclass
class Visit:
    """One visit of the server to a client: what the hooks of a method read, and what they leave behind.

    Attributes:
        labels: (n,) int64, of all images that the client holds, as it knows them, on the visit's device.
        num_classes: C.
        server_round: From 1.
        num_rounds: Of the whole run; what `rounds_of` scales warm-ups with.
        told: What the server half of the method tells this client; empty for most.
        generator: On the CPU; source of every random draw of this visit.
        networks: In training; one for most methods.
        inference: Answers of networks on the local images; `predict` and `frozen` are its short forms.
        state: Tensors by name that the client keeps for its next visit, on the visit's device.
        scratch: What the hooks keep for each other during this visit; nobody else reads it.
        metrics: Numbers, or lists of numbers, that travel with the weights; `Method.reports` says which.
        corrected: (n,) int64 labels to believe instead of the given ones, if the method has any; for scoring and
            export.
        suspected: (n,) bool, images whose label the method thinks is wrong, if it judges them; for scoring.
    """

    labels: Tensor
    num_classes: int
    server_round: int = 1
    num_rounds: int = 1
    told: Mapping[str, Told] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator)
    networks: list[nn.Module] = field(default_factory=list)
    inference: Inference | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | list[float]] = field(default_factory=dict)
    corrected: Tensor | None = None
    suspected: Tensor | None = None

    def predict(self, network: int = 0) -> Tensor:
        """(n, C) float32 logits of a network as it is now, on all local images, in evaluation mode; one pass."""
        assert self.inference is not None
        return self.inference.on_all(self.networks[network])

    def frozen(self, network: int = 0) -> Callable[[Tensor], Tensor]:
        """A copy of a network as it is now, which turns `View.inputs` into logits (batch, C) float32."""
        assert self.inference is not None
        return self.inference.frozen(self.networks[network])


class Method:
    """How a client learns; the defaults are those of plain training with one network.

    Class attributes tell the app what to expect of a method:

    Attributes:
        networks: How many are trained side by side; each is averaged separately (see `task.Networks`).
        features: Whether `View.features` is needed.
        remembers: Whether `visit.state` lasts from visit to visit.
        corrects: Whether visits may leave `corrected` labels.
        suspects: Whether visits may leave `suspected` images.
        strategy: What ``strategy = "auto"`` stands for.
        finds_noisy_clients: Whether its server half tells noisy clients from clean ones, and what clients train on
            depends on it, so that their losses cannot be compared.
        loss_may_be_negative: Whether it may be, as with a pull towards targets.
    """

    networks: ClassVar[int] = 1
    features: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    suspects: ClassVar[bool] = False
    strategy: ClassVar[str] = "fedavg"
    finds_noisy_clients: ClassVar[bool] = False
    loss_may_be_negative: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """A method that checks more calls this first, since it is the dataclass that calls it.

        Raises:
            ValueError: Which parameter is wrong, and what it must be.
        """
        check_parameters(self)

    def views(self, augmentation: str) -> list[str]:
        """The augmentations under which each network sees a batch, given the run's; see `learning.augmentation`."""
        return [augmentation]

    def begin(self, visit: Visit) -> None:
        """Before the first epoch: ``visit.state`` is what the last visit left, empty at the first one."""

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        """The loss of one batch: a scalar, averaged over the batch.

        It is called once a step, so that per-example state may be updated here; it must not wait for the
        device (no ``item()``, no ``if tensor``).
        """
        raise NotImplementedError

    def end_epoch(self, visit: Visit) -> None:
        """After each local epoch."""

    def end(self, visit: Visit) -> None:
        """After the last epoch."""

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        """What visits leave in ``visit.metrics``, by name; the server leaves out a reply with anything else.

        Args:
            told: What the server half told that client for this round.
            classes: C.
        """
        return {}

    def on_server(self) -> ServerHalf:
        """The server half of this method, for one run."""
        return ServerHalf()
