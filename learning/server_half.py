"""What the server does for a method besides averaging: hooks of the round loop, each of which does nothing by default.

They are the counterpart of `learning.method`, and like it know nothing of Flower: a model is a mapping of names to
arrays.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from config.run_config import RunConfig
from data.release import Release
from learning.images import Images
from learning.schema import Schema
from task import Compute

Told = bool | int | float | str | list[float]
# Sends the model to every client and runs an action of its ClientApp ("query.<action>"); returns the metrics of those
# that answer, by partition.
Ask = Callable[[str, Any], Mapping[int, Mapping[str, Any]]]


@dataclass(frozen=True)
class Choice:
    """Who may be sampled in a round.

    Attributes:
        clients: Partitions.
        count: How many of them are sampled; more than there are means all.
    """

    clients: Collection[int]
    count: int


@dataclass(frozen=True)
class OwnList:
    """One of the server's own lists of images.

    Attributes:
        images: Of the n images, at the size from which the run's augmentation cuts.
        labels: (n,) int64, clean; on the CPU.
        noisy: (n,) int64, the noisy labels that some of them carry as well; -1 for the others.
    """

    images: Images
    labels: Tensor
    noisy: Tensor


@dataclass(frozen=True)
class Workbench:
    """What the server trains with, if the method's server half does.

    Attributes:
        config: The run's.
        compute: Device and precision.
        own_list: A list by name, such as ``clean_train``: decoded when it is first asked for, and kept.
        generator: A generator on the CPU for a round and a purpose of the method's; the same for the same.
    """

    config: RunConfig
    compute: Compute
    own_list: Callable[[str], OwnList]
    generator: Callable[[int, str], torch.Generator]


class ServerHalf:
    """Hooks of the round loop; `Method.on_server` makes one per run.

    Attributes:
        trains: Whether `train` does anything.
        reads_data: Whether a `prepare` of its own reads the release. If not, it may get None: a server on real nodes
            that needs no data opens none.
        keeps_models: Whether the server keeps each client's last usable model, on disk, so that `tell_models` may send
            some; its method must have `Method.shares_models`.
    """

    trains: ClassVar[bool] = False
    reads_data: ClassVar[bool] = True
    keeps_models: ClassVar[bool] = False

    def prepare(self, config: RunConfig, release: Release) -> None:
        """Before the roll call: read what is needed from the server's own data.

        Raises:
            ConfigError: Something needed is missing.
        """

    def check_classes(self, classes: int) -> None:
        """After the roll call, before round 1: refuse a number of classes that what was prepared does not suit.

        Raises:
            ConfigError: It does not.
        """

    @property
    def needs_data(self) -> bool:
        """Whether it works with the server's own data."""
        return self.trains or (self.reads_data and type(self).prepare is not ServerHalf.prepare)

    def before_round(self, server_round: int, arrays: Any, ask: Ask) -> None:
        """Before the messages of a round go out; `arrays` is the model that they carry, for `ask` to send."""

    def answers(self, classes: int, images: int) -> Mapping[str, Schema]:
        """By action, what a client's answer to `ask` must hold; one with anything else counts as none.

        Args:
            classes: C.
            images: How many images that client holds.
        """
        return {}

    def tell(self, partition: int) -> dict[str, Told]:
        """What goes to one client with this round's message, as `Visit.told`."""
        return {}

    def tell_arrays(self, partition: int) -> dict[str, np.ndarray]:
        """float32 arrays that go to one client with this round's message, as `Visit.received`."""
        return {}

    def tell_models(self, partition: int) -> dict[str, int]:
        """Whose last models go to one client with this round's message, as `Visit.models`, if it `keeps_models`.

        Returns:
            Partitions that have been in `heard`, by the names under which that client finds their models.
        """
        return {}

    def choose(self, server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        """Who may be sampled for training in a round; None leaves it to the strategy.

        It must depend on nothing but its arguments and what `state` returns, since a resumed run asks again.

        Args:
            server_round: From 1.
            clients: Partitions of all connected clients.
            usual: How many the strategy would sample.
        """
        return None

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        """After aggregation: the metrics of each usable reply, by partition, including what the client half sent."""

    def heard_arrays(self, server_round: int, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """After `heard`: the arrays of each usable reply, by partition, if `Method.sends` announced any."""

    def train(self, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        """Change the global model in place, between aggregation and evaluation, if `trains`.

        Args:
            server_round: From 1; 0 before the first round of a new run.
            model: On `workbench.compute`'s device, with the new global weights.
            workbench: What to do it with.
        """

    def metrics(self, server_round: int) -> dict[str, float]:
        """What this half adds to the round's line in metrics.jsonl."""
        return {}

    def noisy_clients(self) -> Mapping[int, bool] | None:
        """By partition, whether this half takes a client for noisy as things stand; None while it judges nobody.

        A client that is missing was not judged. The round's line says how right it is; no half needs to.
        """
        return None

    def wrong_labels(self) -> Mapping[int, float]:
        """By partition, the share of a client's labels that are wrong, of those whose true labels are all known.

        It says how right `noisy_clients` is, and must serve nothing else.
        """
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """All that later rounds depend on, for checkpoints."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned."""
