"""Runs a network on a client's own images, without gradients or side effects."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.normalization import Normalization
from learning.augmentation import views
from learning.evaluation import evaluation_batch
from learning.images import Images
from task import Compute, classifier, to_input

CENTRE = ("none",)


@dataclass(frozen=True)
class Inference:
    """What a visit needs to ask a network about its images.

    Attributes:
        images: All n that the client holds, or their features; only the centre of images that are stored larger than
            the input is used.
        image_size: Side of the input.
        compute: Device and precision.
        normalization: Mean and deviation of each channel, or a key of `data.normalization.NORMALIZATIONS`.
    """

    images: Images
    image_size: int
    compute: Compute
    normalization: Normalization | str

    def inputs(
        self, batch: Tensor, augmentations: Sequence[str] = CENTRE, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """What networks are given of a batch from `images`, for each augmentation.

        Args:
            batch: (b, side, side, 3) uint8; or (b, d) float32, kept features, which are given as they are.
            augmentations: See `learning.augmentation`.
            generator: On the CPU; needed by those that draw.

        Returns:
            (b, 3, image_size, image_size) or (b, d) float32 each, on the device.
        """
        if batch.dtype is not torch.uint8:
            return [batch] * len(augmentations)
        drawn = views(batch, augmentations, self.image_size, generator or torch.Generator())
        return [to_input(view, self.compute, self.normalization) for view in drawn]

    @torch.no_grad()
    def on_all(self, network: nn.Module) -> Tensor:
        """(n, C) float32 logits in evaluation mode, on the device."""
        size = evaluation_batch(self.image_size, self.compute.device)
        with evaluating(network):
            parts = [self._logits(network, *self.inputs(part)) for part in self.images.in_order(size)]
        return torch.cat(parts)

    @torch.no_grad()
    def features_of_all(self, network: nn.Module) -> Tensor:
        """(n, d) float32, what goes into the classifier in evaluation mode, on the device."""
        size = evaluation_batch(self.image_size, self.compute.device)
        with evaluating(network), features_of(network, wanted=True) as found:
            for part in self.images.in_order(size):
                self._logits(network, *self.inputs(part))
        return torch.cat(found)

    @torch.no_grad()
    def answer(self, network: nn.Module, inputs: Tensor, *, training: bool) -> Tensor:
        """(b, C) float32 logits for what `inputs` gives; in evaluation mode unless it is `training`."""
        with contextlib.nullcontext() if training else evaluating(network):
            return self._logits(network, inputs)

    def frozen(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """A copy of `network` as it is now, as a function from what `inputs` gives to logits (b, C) float32."""
        kept = copy.deepcopy(network).eval().requires_grad_(False)

        def answer(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                return self._logits(kept, inputs)

        return answer

    def _logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        with self.compute.autocast():
            logits: Tensor = network(inputs)
        return logits.float()


@contextlib.contextmanager
def features_of(network: nn.Module, *, wanted: bool) -> Iterator[list[Tensor]]:
    """Collects what enters the classifier in this block, (batch, d) float32 per forward pass, if wanted."""
    found: list[Tensor] = []
    if not wanted:
        yield found
        return
    hook = classifier(network).register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0].float()))
    try:
        yield found
    finally:
        hook.remove()


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which BatchNorm uses its running statistics and keeps them; then restores the mode."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
