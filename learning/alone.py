"""What a client can learn from its own images alone: a federation of one, within a visit, whose model never travels.

It has as many rounds as it is given epochs, each of which goes once through the images with a method of its own, in the
one loop that all training shares (`learning.training`). So precision, batches, augmentation, clipping, the optimiser
and what a method keeps from round to round are as in a run. The learning rate begins where the run's does, and its
schedule is stretched or shortened to these rounds. Momentum starts from zero in each.

Networks start as copies of the one that the client received. If the method trains several, all but the first get a
classifier with new weights: otherwise they would be equal for good where no view is drawn. With `compile` these copies
run uncompiled. Draws come from streams that derive from the visit's own, from which nothing is taken.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from config.run_config import RunConfig
from learning.images import Images
from learning.method import Method, Visit
from learning.method_rules import MethodError, problem_of_class
from learning.optimizer import make_optimizer
from task import Compute, Networks, classifier, derived_generator, derived_seed

if TYPE_CHECKING:
    from learning.training import TrainingReport

UNAUGMENTED = {"none"}


@dataclass(frozen=True)
class Learned:
    """What came of it; the networks are gone.

    Attributes:
        logits: (n, C) float32 of the trained network on all local images, in evaluation mode, on the visit's device; of
            several networks the logarithms of their mean probabilities.
        labels: (n,) int64, what the method believed in the end: the labels that it was given unless it `corrects`.
        losses: Mean loss per image of each epoch.
        images_seen: Images that went through a step.
    """

    logits: Tensor
    labels: Tensor
    losses: list[float]
    images_seen: int


class Alone:
    """Trains further networks on one client's images, in one visit."""

    def __init__(
        self,
        train: "Callable[..., TrainingReport]",
        method: Method,
        images: Images,
        config: RunConfig,
        compute: Compute,
    ) -> None:
        """Trains nothing yet.

        Args:
            train: `learning.training.train_locally`.
            method: The visit's, which announces by `passes_alone` how much is trained here.
            images: Of the client, or their features.
            config: The run's.
            compute: Device and precision.
        """
        self._train, self._method, self._images = train, method, images
        self._config, self._compute = config, compute
        self._passes = self._times = 0
        self.images_seen = 0

    def learn(self, visit: Visit, method: Method, epochs: int) -> Learned:
        """Train a copy of the visit's first network, as it is now, with another method; see `Visit.alone`.

        Raises:
            FloatingPointError: The loss of an epoch is not finite.
            MethodError: It is more than `passes_alone` announces, or this method cannot be trained here.
        """
        assert visit.inference is not None
        self._check(method, epochs)
        self._times += 1
        seed = derived_seed(visit.generator.initial_seed(), "alone", self._times)
        model = copies(visit.networks[0], method.networks, seed)
        config, labels = config_alone(self._config, epochs), visit.labels.clone()
        optimizer = make_optimizer(config, model)
        losses: list[float] = []
        seen, state, believed = 0, dict[str, Tensor](), labels
        for number in range(1, epochs + 1):
            generator = derived_generator(seed, "epoch", number)
            try:
                report = self._train(
                    model, self._images, labels, method, config, self._compute, generator, optimizer=optimizer,
                    server_round=number, state=state, relabelled=believed if method.relabels else None,
                )  # fmt: skip
            except FloatingPointError as error:
                where = f"in epoch {number} of {epochs} that a client trained alone"
                raise FloatingPointError(f"{where}, {error}") from None
            state = report.visit.state if method.remembers else {}
            believed = labels if report.visit.corrected is None else report.visit.corrected
            losses += report.epoch_losses
            seen += report.images_seen
        self.images_seen += seen
        return Learned(visit.inference.on_all(model), believed, losses, seen)

    def _check(self, method: Method, epochs: int) -> None:
        """Raise a `MethodError` unless this can be trained here, and has been announced."""
        outer, inner = type(self._method).__name__, type(method).__name__
        if epochs < 1:
            raise MethodError(f"{outer} trains {inner} alone for {epochs} epochs; it must be at least 1")
        if problem := problem_of_class(method, self._config.augmentation):
            raise MethodError(f"{outer} trains {inner} alone; {problem}")
        if missing := [name for name in dict(method.heads) if name not in dict(self._method.heads)]:
            raise MethodError(f"{outer} trains {inner} alone, so its heads must name {', '.join(missing)} as well")
        unchanged = set(method.views(self._config.augmentation)) == UNAUGMENTED and not method.mixes
        if len(self._images.shape) == 2 and not unchanged:
            raise MethodError(f"{outer} trains {inner} alone, which changes images, so its mixes must be True")
        self._passes += epochs * (method.passes + method.passes_alone)
        if self._passes > self._method.passes_alone:
            raise MethodError(
                f"{outer} trains alone for {self._passes} passes through the client's images; its passes_alone is"
                f" {self._method.passes_alone}, and must be at least that"
            )


def config_alone(config: RunConfig, epochs: int) -> RunConfig:
    """The run's config for a federation of one with so many rounds: a warm-up of the rate takes the same share."""
    warm_up = config.lr_warm_up * epochs // config.num_server_rounds
    return replace(config, local_epochs=1, num_server_rounds=epochs, lr_warm_up=warm_up)


def copies(network: nn.Module, count: int, seed: int) -> nn.Module:
    """One model with so many copies of a network, all but the first with a new classifier.

    Args:
        network: As the visit has it, on its device.
        count: How many.
        seed: Decides the classifiers' weights, which are drawn uniformly as PyTorch's linear layers are.
    """
    networks = [copy.deepcopy(network) for _ in range(count)]
    for number, one in enumerate(networks[1:], 1):
        layer, generator = classifier(one), derived_generator(seed, "classifier", number)
        bound = layer.in_features**-0.5
        with torch.no_grad():
            for value in layer.parameters():
                value.copy_(torch.empty(value.shape).uniform_(-bound, bound, generator=generator))
    return networks[0] if count == 1 else Networks(networks)
