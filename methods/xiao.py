"""Noise types, learned with clean images on the server (Xiao, Xia, Yang, Huang and Wang, CVPR 2015).

One network has two heads: p(y | x) over classes, and p(z | x) over the types of label noise of `noise_types`. A
client's loss on a given label ~y, averaged over the batch, is

    -log sum_{y, z} P(~y | y, z) p(y | x) p(z | x)

whose gradients are those of the paper's EM: p(y | x) - post(y) on the logits of classes, and p(z | x) - post(z), times
`type_rate`, on those of types, where post is the posterior of y and z given ~y. The server owns the images that need
clean labels:

1. Before round 1 it trains p(y | x) on clean train, then p(z | x) on those of its images that carry a noisy label too.
2. It tells clients Cm, which it counted on clean train and clean val.
3. Each round, after aggregation, it takes steps on  a CE(p(y | x), y) + b CE(p(z | x), z)  over clean train.

Stage 1 has a = `clean_weight`, b = 0, and keeps p(z | x) as it is on clients; stage 2 has a = `later_clean_weight`,
b = `type_weight`, and moves it at `type_rate`.

The official code (Cysu/noisy_label, two CaffeNets that meet in the loss, batches of 128) trains 15,000 iterations on
clean labels and 5,000 on noise types, with a tenth of the learning rate in the last third and the last two fifths: 40
epochs of 47,570 images and 26 of 24,637. Then it trains 160,000 iterations, of which stage 1 is the first 100,000, on
batches half clean and half noisy: hence as many steps on the server as an average client takes. Its learning rate falls
tenfold every 50,000 of them; here it is the run's. A single network stands in for the two: with ``trunk = "classes"``
its body learns from classes alone, and the types' head takes its features as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import INFO
from typing import Any, ClassVar, cast

import numpy as np
import torch
from flwr.common import log
from torch import Tensor, nn

from config.choices import VAL_SPLITS
from config.method_data import problem_of_few
from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from config.run_config import ConfigError, RunConfig
from data.release import Release
from learning.method import Batch, Method, ServerHalf, Told, Visit, rounds_of
from learning.server_half import Workbench
from methods.clean_images import HEADS, Bench, OnCleanImages, type_logits
from methods.noise_types import TYPES, UNKNOWN, confusing_classes, log_table, types_of
from methods.transition import count_pairs

CONFUSION = "confusion"  # what the server tells each client under this name: Cm row by row, C * C numbers
LIST = "clean_train"  # what the server trains on
CLEAN_FALL, TYPE_FALL = 2 / 3, 3 / 5  # shares of the epochs before round 1 after which the learning rate falls


@dataclass(frozen=True)
class Xiao(Method):
    """The client half, and all parameters.

    Attributes:
        first_stage: Length of stage 1 as a share of the run's rounds.
        first_stage_rounds: The same in rounds; -1 leaves it to `first_stage`.
        clean_weight: a in stage 1.
        later_clean_weight: a in stage 2.
        type_weight: b in stage 2.
        type_rate: Factor of the gradient of p(z | x) on clients in stage 2.
        clean_epochs: On clean train before round 1.
        type_epochs: On noise types before round 1.
        server_share: Steps of the server in a round, as a multiple of those that a client takes on average.
        server_steps: The same in steps; -1 leaves it to `server_share`.
        trunk: What the network's body learns from: ``classes``, or ``both`` classes and types.
    """

    first_stage: float = parameter(0.625, interval(0, 1))
    first_stage_rounds: int = parameter(-1, rounds_or_share(0, "first-stage"))
    clean_weight: float = parameter(0.1, interval(0))
    later_clean_weight: float = parameter(1.0, interval(0))
    type_weight: float = parameter(0.1, interval(0))
    type_rate: float = parameter(0.1, interval(0))
    clean_epochs: int = parameter(40, at_least(0))
    type_epochs: int = parameter(26, at_least(0))
    server_share: float = parameter(1.0, interval(0))
    server_steps: int = parameter(-1, rounds_or_share(0, "server-share"))
    trunk: str = parameter("classes", one_of("classes", "both"))

    features: ClassVar[bool] = True
    heads: ClassVar[tuple[tuple[str, int], ...]] = HEADS
    both_labels: ClassVar[tuple[str, ...]] = (LIST,)

    def in_first_stage(self, server_round: int, num_rounds: int) -> bool:
        return server_round <= rounds_of(self.first_stage, self.first_stage_rounds, num_rounds)

    def begin(self, visit: Visit) -> None:
        """Keep log P(~y | y, z), (C, C, 3) float32, on the device.

        Raises:
            ConfigError: The server sent no matrix of C classes.
        """
        classes, told = visit.num_classes, cast(list[float], visit.told.get(CONFUSION, []))
        if len(told) != classes**2:
            raise ConfigError(
                f"the server sent {len(told)} numbers of confused classes; for {classes} classes there must be"
                f" {classes**2}."
            )
        table = torch.from_numpy(log_table(np.array(told, np.float64).reshape(classes, classes)))
        visit.scratch["table"] = table.to(visit.labels.device, torch.float32)
        visit.scratch["rate"] = 0.0 if self.in_first_stage(visit.server_round, visit.num_rounds) else self.type_rate

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        types = type_logits(batch, visit, self.trunk)
        rate: float = visit.scratch["rate"]
        still = types.detach()  # without a gradient nothing moves the head, not even weight decay
        types = still + rate * (types - still) if rate else still
        joint = batch.logits.log_softmax(dim=1)[:, :, None] + types.log_softmax(dim=1)[:, None, :]
        table: Tensor = visit.scratch["table"]
        return -(table[batch.labels] + joint).flatten(1).logsumexp(dim=1).mean()

    def on_server(self) -> "XiaoOnServer":
        return XiaoOnServer(self)


class XiaoOnServer(ServerHalf):
    """Counts which classes are confused, tells every client, and trains on clean images."""

    trains: ClassVar[bool] = True

    def __init__(self, method: Xiao) -> None:
        self._method = method
        self._confusion = np.zeros((0, 0))
        self._seen = 0.0  # images that an average client used in this round
        self._losses: dict[int, float] = {}  # of the server's steps, by round; the newest alone

    def prepare(self, config: RunConfig, release: Release) -> None:
        """Count Cm.

        Raises:
            ConfigError: Clients do not hold the released noisy labels, validation is on what the server trains on, or
                clean train has no images with both labels.
            DataError: The lists cannot be read.
        """
        for key, value, allowed in (
            ("train-split", config.train_split, ("noisy", "noisy-mini")),
            ("label-noise", config.label_noise, ("none",)),
            ("val-split", config.val_split, tuple(name for name in VAL_SPLITS if name != LIST)),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"run config: 'method' is 'xiao', whose server trains on clean train and learns how the released"
                    f" noisy labels are wrong, but {key!r} is {value!r}; it must be {' or '.join(allowed)}."
                )
        _, clean, noisy = release.double_labelled([LIST])
        check_enough(len(clean), f"{release.root} has {len(clean)}")
        self._confusion = confusing_classes(count_pairs(release))
        counts = np.bincount(types_of(clean, noisy, self._confusion), minlength=TYPES)
        log(INFO, "Noise types of %d clean images: %d noise-free, %d random, %d confusing.", len(clean), *counts)

    def tell(self, partition: int) -> dict[str, Told]:
        return {CONFUSION: self._confusion.ravel().tolist()}

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        self._seen = sum(reply["images-seen"] for reply in replies.values()) / max(1, len(replies))

    def train(self, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        own = workbench.own_list(LIST)
        types = torch.from_numpy(types_of(own.labels.numpy(), own.noisy.numpy(), self._confusion))
        typed = torch.from_numpy(np.flatnonzero(types.numpy() != UNKNOWN))
        check_enough(len(typed), f"{len(typed)} of them can be read")
        bench = Bench(model, workbench, own)
        if server_round == 0:
            self._before(bench, types, typed)
        elif goal := self._goal(server_round, types, workbench.config):
            config = replace(workbench.config, local_epochs=1)
            self._losses = {server_round: bench.train(goal, config, server_round, "round")}

    def _before(self, bench: Bench, types: Tensor, typed: Tensor) -> None:
        """Train on classes, then on types; a body that learns from both must not forget the classes meanwhile."""
        method = self._method
        classes = OnCleanImages(types, 1.0, 0.0, method.trunk)
        bench.train_long(classes, method.clean_epochs, CLEAN_FALL, "classes")
        kinds = OnCleanImages(types, 1.0 if method.trunk == "both" else 0.0, 1.0, method.trunk, typed)
        bench.train_long(kinds, method.type_epochs, TYPE_FALL, "types")

    def _goal(self, server_round: int, types: Tensor, config: RunConfig) -> OnCleanImages | None:
        """What the server does in a round; None if that is nothing."""
        method = self._method
        first = method.in_first_stage(server_round, config.num_server_rounds)
        clean_weight = method.clean_weight if first else method.later_clean_weight
        type_weight = 0.0 if first else method.type_weight
        usual = max(1, round(method.server_share * self._seen / config.batch_size)) if method.server_share else 0
        count = method.server_steps if method.server_steps >= 0 else usual
        if not count or not (clean_weight or type_weight):
            return None
        return OnCleanImages(types, clean_weight, type_weight, method.trunk, count=count)

    def metrics(self, server_round: int) -> dict[str, float]:
        found = self._losses.get(server_round)
        return {} if found is None else {"server-loss": found}


def check_enough(count: int, how_many: str) -> None:
    """Check that there are images of known noise type.

    Raises:
        ConfigError: There are too few.
    """
    if problem := problem_of_few(count, how_many):
        raise ConfigError(problem)
