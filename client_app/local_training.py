"""The one training loop that every method shares."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from batches import epoch_batches, feed
from client_app.augmentation import augment
from client_app.methods import Method
from client_app.resources import free_gpu_bytes
from client_app.sgd import LocalSGD
from config import RunConfig
from task import Compute, to_input


@dataclass(frozen=True)
class TrainingReport:
    """What one visit did.

    Attributes:
        epoch_losses: Mean loss per image of each local epoch, in order.
        images_seen: Images that went through a step, over all epochs.
        seconds: Wall time of the loop, without decoding.
    """

    epoch_losses: list[float]
    images_seen: int
    seconds: float


def train_locally(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: Method,
    config: RunConfig,
    compute: Compute,
    generator: torch.Generator,
    proximal_mu: float = 0.0,
    optimizer: LocalSGD | None = None,
) -> TrainingReport:
    """Train `model` in place for ``config.local_epochs`` epochs.

    Nothing in a step waits for the device: batches come ahead of it, and losses stay there until an epoch ends.

    Args:
        model: On ``compute.device``, channels-last; parameters in float32.
        images: (n, height, width, 3) uint8.
        labels: (n,) int64.
        method: Turns logits and labels into a loss.
        config: Epochs, batch size, SGD, augmentation, normalisation.
        compute: Device and precision.
        generator: On the CPU; source of every random draw of this visit.
        proximal_mu: mu of FedProx; the reported losses leave its term out.
        optimizer: This model's, from an earlier visit, so that its buffers are used again.

    Raises:
        FloatingPointError: The loss of an epoch is not finite.
    """
    started = time.perf_counter()
    optimizer = optimizer or LocalSGD(model)
    optimizer.begin(config.learning_rate, config.momentum, config.weight_decay)
    proximal = ProximalTerm(model, proximal_mu) if proximal_mu else None
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype is torch.float16)
    labels = labels.to(compute.device)
    images = place(images, compute.device)
    model.train()
    epoch_losses: list[float] = []
    images_seen = 0
    for epoch in range(1, config.local_epochs + 1):
        loss_sum = torch.zeros((), dtype=torch.float64, device=compute.device)
        seen = 0
        order = epoch_batches(len(labels), config.batch_size, config.drop_last, generator)
        for batch, given in feed(images, labels, order, compute.device):
            batch = augment(batch, config.augmentation, config.image_size, generator)
            inputs = to_input(batch, compute, config.normalization)
            with compute.autocast():
                logits = model(inputs)
            loss = method.loss(logits.float(), given)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            optimizer.take_gradients()
            if proximal is not None:
                scaler.unscale_(optimizer)
                proximal.add_gradient()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            loss_sum += loss.detach() * len(given)
            seen += len(given)
        mean_loss = float(loss_sum) / seen
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the loss became {mean_loss} in local epoch {epoch}; a smaller learning-rate"
                f" than {config.learning_rate:g} may help"
            )
        epoch_losses.append(mean_loss)
        images_seen += seen
    return TrainingReport(epoch_losses, images_seen, time.perf_counter() - started)


class ProximalTerm:
    """``mu / 2 ||w - w_t||^2`` over the trainable parameters (FedProx, Li et al., 2020), as its gradient mu (w - w_t).

    BatchNorm's buffers are not trained and do not count.
    """

    def __init__(self, model: nn.Module, mu: float) -> None:
        """Take the model's parameters as w_t."""
        self._mu = mu
        self._parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._start = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add to the gradients of the loss, which are there and not scaled."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        # One kernel for all tensors, as torch's optimisers do it.
        away = torch._foreach_sub(self._parameters, self._start)
        torch._foreach_add_(gradients, away, alpha=self._mu)


def place(images: Tensor, device: torch.device) -> Tensor:
    """All images of the visit on the GPU if they take at most half of what this client has free there, else where they
    are.
    """
    if device.type != "cuda":
        return images
    return images.to(device) if images.nbytes <= free_gpu_bytes() // 2 else images
