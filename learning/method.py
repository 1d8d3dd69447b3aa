"""What a method is: hooks over the one training loop, each with a default.

A method is a frozen dataclass whose fields are its parameters (`method-args`). It defines the loss of a batch, and
overrides whatever else it needs. What changes during a visit is in the `Visit`, which each hook receives; what must
last until the client's next visit goes into ``visit.state``. Most methods need only averaging from the server; one that
needs more returns its server half from `on_server`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from config.named import rounds_of as rounds_of  # re-exported: lengths of methods in rounds
from config.parameters import check_parameters
from learning.batches import epoch_batches
from learning.inference import Inference
from learning.local_optimizer import LocalOptimizer
from learning.schema import Floats, Schema
from learning.server_half import ServerHalf as ServerHalf
from learning.server_half import Told as Told
from learning.sgd import LocalSGD
from learning.steps import Batch as Batch
from learning.steps import Seen as Seen
from learning.steps import Step as Step
from learning.steps import View as View

if TYPE_CHECKING:
    from learning.alone import Alone, Learned


@dataclass
class Visit:
    """One visit of the server to a client: what the hooks of a method read, and what they leave behind.

    Attributes:
        labels: (n,) int64, of all images that the client holds, on the visit's device: the given ones, unless a method
            that `relabels` has replaced them.
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
        suspicion: (n,) float32 on the visit's device, finite: how suspect each label is, the larger the more, by the
            number that the method decides by. Only its order counts, within the client; for scoring.
        batch_size: Of the run.
        drop_last: Whether an incomplete batch is left out.
        epoch: The local epoch, from 1; 0 before the first.
        own: The client's own network, with `Method.keeps_network`, on the device.
        used: How many images the client's weight in the mean counts; None: all that it holds.
        received: Arrays that the server half sent with the weights, float32, on the device.
        models: Other clients' last models, which it sent as well, by its names for them: what travels of each, on the
            CPU; `learning.shared_state.load_shared` puts one into a copy of the network.
        optimizer: Makes the run's optimiser, at the round's rate, for whatever else a method trains.
        sends: Arrays that travel back with the weights; `Method.sends` says which.
        trainer: Trains further networks on the local images; `alone` is its short form.
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
    suspicion: Tensor | None = None
    batch_size: int = 64
    drop_last: bool = False
    epoch: int = 0
    own: nn.Module | None = None
    used: int | None = None
    received: Mapping[str, Tensor] = field(default_factory=dict)
    sends: dict[str, Tensor] = field(default_factory=dict)
    trainer: "Alone | None" = None
    models: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    optimizer: Callable[[nn.Module], LocalOptimizer] = LocalSGD

    def __post_init__(self) -> None:
        self.given = self.labels
        """(n,) int64, the labels that came with the images, whatever has become of `labels`."""
        self.labels = self.labels.clone()

    def batches(self, rows: Tensor | None = None) -> list[Tensor]:
        """Some of the images in random batches of the run's size, each (batch,) int64 rows on the CPU.

        Args:
            rows: (m,) int64 on the CPU; None: all images.

        Returns:
            An incomplete last batch is left out if `drop_last` says so, unless it is the only one.
        """
        count = len(self.labels) if rows is None else len(rows)
        drop = self.drop_last and count >= self.batch_size
        chosen = epoch_batches(count, self.batch_size, drop, self.generator)
        return list(chosen) if rows is None else [rows[part] for part in chosen]

    def predict(self, network: int = 0) -> Tensor:
        """(n, C) float32 logits of a network as it is now, on all local images, in evaluation mode; one pass."""
        assert self.inference is not None
        return self.inference.on_all(self.networks[network])

    def features(self, network: int = 0) -> Tensor:
        """(n, d) float32, what goes into a network's classifier for all local images, as `predict`."""
        assert self.inference is not None
        return self.inference.features_of_all(self.networks[network])

    def answer(self, inputs: Tensor, network: int = 0, *, training: bool = False) -> Tensor:
        """(batch, C) float32 logits of a network as it is now, without gradients.

        Args:
            inputs: As in `Seen` and `View`.
            network: Which one.
            training: Whether it answers as it does in a step, so that BatchNorm uses and counts this batch; otherwise
                it is in evaluation mode.
        """
        assert self.inference is not None
        return self.inference.answer(self.networks[network], inputs, training=training)

    def frozen(self, network: int = 0) -> Callable[[Tensor], Tensor]:
        """A copy of a network as it is now, which turns `View.inputs` into logits (batch, C) float32."""
        assert self.inference is not None
        return self.inference.frozen(self.networks[network])

    def alone(self, method: "Method", epochs: int) -> "Learned":
        """Train a copy of the first network, as it is now, on the local images alone; see `learning.alone`.

        The visit's own networks, state and generator stay as they are. `Method.passes_alone` must announce it.

        Args:
            method: How it learns from `labels`; to it each epoch is a round of a run of so many rounds.
            epochs: How often it goes through the images.
        """
        assert self.trainer is not None
        return self.trainer.learn(self, method, epochs)


class Method:
    """How a client learns; the defaults are those of plain training with one network.

    Class attributes tell the app what to expect of a method:

    Attributes:
        networks: How many are trained side by side; each is averaged separately (see `task.Networks`).
        features: Whether `View.features` is needed.
        remembers: Whether `visit.state` lasts from visit to visit.
        corrects: Whether visits may leave `corrected` labels.
        relabels: Whether visits may write into `visit.labels`, which then are the labels of the client's later visits
            too, and its `corrected` ones; it must also have `remembers` and `corrects`.
        heads: Further linear layers on the features, by name, and how many outputs each has: modules of
            ``network.further_heads``, trained if a loss uses them.
        passes: How many images the steps of one epoch may use at most, as a multiple of those that the client holds.
        learning_rates: By preset, the learning rate that suits the method better than the preset's own.
        suspects: Whether visits may leave `suspected` images and their `suspicion`.
        shares_models: Whether clients may get other clients' models, for which the server keeps them; then no `privacy`
            is possible.
        strategy: What ``strategy = "auto"`` stands for.
        finds_noisy_clients: Whether its server half tells noisy clients from clean ones, and what clients train on
            depends on it, so that their losses cannot be compared.
        both_labels: Lists of the server's own in which its server half needs images that carry both labels.
    """

    networks: ClassVar[int] = 1
    features: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    relabels: ClassVar[bool] = False
    heads: ClassVar[tuple[tuple[str, int], ...]] = ()
    passes: ClassVar[int] = 1
    learning_rates: ClassVar[Mapping[str, float]] = {}
    suspects: ClassVar[bool] = False
    shares_models: ClassVar[bool] = False
    strategy: ClassVar[str] = "fedavg"
    finds_noisy_clients: ClassVar[bool] = False
    both_labels: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """A method that checks more calls this first, since it is the dataclass that calls it.

        Raises:
            ValueError: Which parameter is wrong, and what it must be.
        """
        check_parameters(self)

    @property
    def keeps_network(self) -> bool:
        """Whether the client has a network of its own, `visit.own`, which never travels.

        At first it is a copy of the one that the client receives, later it is as the last visit left it. It is not
        trained; a method updates it. A method with one must also have `remembers`. Usually a class attribute as well;
        a property where it depends on parameters.
        """
        return False

    @property
    def loss_may_be_negative(self) -> bool:
        """Whether it may be, as with a pull towards targets; a class attribute or a property, likewise."""
        return False

    @property
    def passes_alone(self) -> int:
        """How many times `Visit.alone` may go through the client's images in one visit; 0 for a method without it.

        An epoch of a method counts as many as its `passes`. A class attribute or a property, likewise.
        """
        return 0

    @property
    def mixes(self) -> bool:
        """Whether `mix`, or any other hook, changes the images that a network sees; by default, whether there is one.

        If not, and if no view is augmented, clients may be given features in place of images
        (`learning.frozen_features`). A class attribute or a property, likewise.
        """
        return type(self).mix is not Method.mix

    @property
    def models_received(self) -> int:
        """How many other clients' models a message brings at most, if it `shares_models`: a probe measures them."""
        return 0

    def views(self, augmentation: str) -> list[str]:
        """The augmentations under which each network sees a batch, given the run's; see `learning.augmentation`."""
        return [augmentation]

    def begin(self, visit: Visit) -> None:
        """Before the first epoch: ``visit.state`` is what the last visit left, empty at the first one."""

    def steps(self, visit: Visit) -> Sequence[Step]:
        """The steps of the epoch that begins; by default each image is used once, see `Visit.batches`.

        At least one step must be left: a client that chooses no image cannot train.
        """
        return [Step((rows,)) for rows in visit.batches()]

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        """What a network is trained on: by default the views as they are.

        It is called once a step for each network, before the forward pass, and must not wait for the device. A
        method that mixes images keeps what it did to their labels in ``visit.scratch``, for `loss`.

        Returns:
            One for each view that `loss` will find, each (any number, 3, height, width) float32.
        """
        return seen.inputs

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        """The loss of one batch: a scalar, averaged over the batch.

        It is called once a step, so that per-example state may be updated here; it must not wait for the
        device (no ``item()``, no ``if tensor``).
        """
        raise NotImplementedError

    def end_step(self, visit: Visit) -> None:
        """After each step of SGD; it must not wait for the device."""

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

    def sends(self, told: Mapping[str, Told], classes: int, width: int) -> Mapping[str, Floats]:
        """What visits leave in ``visit.sends``, by name; the server leaves out a reply with anything else.

        Args:
            told: What the server half told that client for this round.
            classes: C.
            width: d, the number of features.
        """
        return {}

    def on_server(self) -> ServerHalf:
        """The server half of this method, for one run."""
        return ServerHalf()
