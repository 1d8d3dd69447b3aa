"""What the server of `xiao` does with clean images: the clients' own training loop, on a loss with true labels."""

from dataclasses import dataclass, replace
from logging import INFO
from typing import ClassVar, cast

from flwr.common import log
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.run_config import RunConfig
from learning.method import Batch, Method, Step, Visit
from learning.server_half import OwnList, Workbench
from learning.training import train_locally
from methods.noise_types import TYPES, UNKNOWN

HEAD = "noise_types"  # of the network
HEADS = ((HEAD, TYPES),)
FALLEN = 0.1  # what remains of the learning rate in the last epochs before round 1


@dataclass(frozen=True, eq=False)
class OnCleanImages(Method):
    """What the server minimises: ``a CE(p(y | x), y) + b CE(p(z | x), z)``, averaged over the batch.

    As in the official code, images of unknown type count in that mean, with 0 in place of the second term.

    Attributes:
        types: (n,) int64 noise types, `UNKNOWN` where there is none; on the CPU.
        clean_weight: a.
        type_weight: b.
        trunk: See `xiao.Xiao`.
        rows: (m,) int64, the images that are used; None: all.
        count: Steps of an epoch; None: as many as use each image once.
    """

    types: Tensor
    clean_weight: float
    type_weight: float
    trunk: str
    rows: Tensor | None = None
    count: int | None = None

    features: ClassVar[bool] = True
    heads: ClassVar[tuple[tuple[str, int], ...]] = HEADS
    passes: ClassVar[int] = 10**9  # `count` is the server's own business

    def begin(self, visit: Visit) -> None:
        visit.scratch["types"] = self.types.to(visit.labels.device)

    def steps(self, visit: Visit) -> list[Step]:
        batches = visit.batches(self.rows)
        while self.count is not None and len(batches) < self.count:
            batches += visit.batches(self.rows)
        return [Step((rows,)) for rows in batches[: self.count]]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        loss = self.clean_weight * cross_entropy(batch.logits, batch.labels) if self.clean_weight else 0.0
        if self.type_weight:
            types = visit.scratch["types"][batch.rows]
            logits = type_logits(batch, visit, self.trunk)
            summed = cross_entropy(logits, types, ignore_index=UNKNOWN, reduction="sum")
            loss = loss + self.type_weight * summed / len(types)
        return cast(Tensor, loss)


def type_logits(batch: Batch, visit: Visit, trunk: str) -> Tensor:
    """(batch, 3) float32 logits of noise types."""
    features = batch.views[0][0].features
    assert features is not None
    head = visit.networks[0].get_submodule(f"further_heads.{HEAD}")
    return cast(Tensor, head(features if trunk == "both" else features.detach()))


@dataclass(frozen=True)
class Bench:
    """The clients' training loop, for the server's images."""

    model: nn.Module
    workbench: Workbench
    own: OwnList

    def train(self, goal: OnCleanImages, config: RunConfig, server_round: int, purpose: str) -> float:
        """Train as `config` says, at that round's rate, in whole batches if there are any.

        Returns:
            The last epoch's mean loss.
        """
        config, generator = replace(config, drop_last=True), self.workbench.generator(server_round, purpose)
        images, labels, compute = self.own.images, self.own.labels, self.workbench.compute
        report = train_locally(self.model, images, labels, goal, config, compute, generator, server_round=server_round)
        return report.epoch_losses[-1]

    def train_long(self, goal: OnCleanImages, epochs: int, fall: float, purpose: str) -> None:
        """Train for some epochs before round 1, the last of them, from `fall` on, at a lower learning rate."""
        usual, early = self.workbench.config, round(fall * epochs)
        for number, (count, part) in enumerate(((early, 1.0), (epochs - early, FALLEN))):
            if count:
                config = replace(usual, local_epochs=count, learning_rate=part * usual.learning_rate)
                loss = self.train(goal, config, 0, f"{purpose} {number}")
                log(INFO, "Before round 1, %d epochs on the server's %s: loss %.3f.", count, purpose, loss)
