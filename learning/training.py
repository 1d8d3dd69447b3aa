"""The one training loop that every method shares."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from config.normalization import normalization_of
from config.run_config import RunConfig
from learning.alone import Alone
from learning.draws import derived_draws
from learning.images import Images, images_on
from learning.inference import Inference, features_of
from learning.method import Batch, Method, Seen, Step, Told, View, Visit
from learning.method_rules import check_left, check_loss, check_mixed, check_steps
from learning.optimizer import LocalOptimizer, make_optimizer
from learning.own_network import keep_own, own_network
from learning.schedule import rate_of
from task import Compute, classifier, networks_of


@dataclass(frozen=True)
class TrainingReport:
    """What one visit did.

    Attributes:
        epoch_losses: Mean loss per image of each local epoch, in order.
        images_seen: Images that went through a step, over all epochs and what was trained alone (`Visit.alone`).
        seconds: Wall time of the loop; on a GPU, with the time that it waits for images that are still being decoded.
        visit: What the method left behind.
    """

    epoch_losses: list[float]
    images_seen: int
    seconds: float
    visit: Visit


def train_locally(
    model: nn.Module,
    images: Images | Tensor,
    labels: Tensor,
    method: Method,
    config: RunConfig,
    compute: Compute,
    generator: torch.Generator,
    proximal_mu: float = 0.0,
    optimizer: LocalOptimizer | None = None,
    server_round: int = 1,
    told: Mapping[str, Told] | None = None,
    state: Mapping[str, Tensor] | None = None,
    relabelled: Tensor | None = None,
    received: Mapping[str, Tensor] | None = None,
    models: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> TrainingReport:
    """Train `model` in place for ``config.local_epochs`` epochs.

    Nothing in a step waits for the device: batches are sent ahead, and losses stay on it until an epoch ends.

    Args:
        model: On ``compute.device``, channels-last, with the `Method.networks` networks; parameters in float32. Or what
            `learning.frozen_features` makes of it, and `images` are features.
        images: (n, height, width, 3) uint8; a tensor may be on the CPU or on ``compute.device``.
        labels: (n,) int64.
        method: Turns the networks' answers into a loss.
        config: Epochs, batch size, optimiser, learning rate and its schedule, augmentation, normalisation.
        compute: Device and precision.
        generator: On the CPU; source of every random draw of this visit. Layers that draw, such as dropout, have a
            stream of their own, which derives from its seed.
        proximal_mu: mu of FedProx; the reported losses leave its term out.
        optimizer: This model's, as `config` asks for, from an earlier visit, so that its buffers are reused.
        server_round: From 1, for the learning rate and for methods whose loss depends on it; 0 for what a server
            trains before round 1, at the rate of round 1.
        told: What the server half of the method tells this client.
        state: What the method kept at the client's last visit; not written into.
        relabelled: (n,) int64, the labels that it left there in place of `labels`, if it `relabels`.
        received: Arrays that the server half of the method sent, float32.
        models: Other clients' models that it sent, by name, on the CPU.

    Raises:
        FloatingPointError: The loss of an epoch is not finite.
        MethodError: The method does what cannot be trained on, kept or sent.
    """
    started = time.perf_counter()
    optimizer = optimizer or make_optimizer(config, model)
    optimizer.begin(rate_of(config, server_round), config.momentum, config.weight_decay)
    proximal = ProximalTerm(model, proximal_mu) if proximal_mu else None
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype is torch.float16)
    images, labels = images_on(images, compute.device), labels.to(compute.device)
    look = partial(_look, method=method, config=config, compute=compute)
    alone = Alone(train_locally, method, images, config, compute)
    visit = Visit(
        labels,
        _num_classes(model),
        server_round,
        config.num_server_rounds,
        told or {},
        generator,
        networks_of(model),
        Inference(images, config.image_size, compute, normalization_of(config)),
        {name: value.to(compute.device, copy=True) for name, value in (state or {}).items()},  # methods write into it
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        received={name: value.to(compute.device) for name, value in (received or {}).items()},
        trainer=alone,
        models=models or {},
        optimizer=partial(_begun, config, server_round),
    )
    if relabelled is not None:
        visit.labels = relabelled.to(compute.device, copy=True)
    if method.keeps_network:
        visit.own = own_network(visit.networks[0], visit.state)
    with derived_draws(generator, compute.device):
        method.begin(visit)
        model.train()
        epoch_losses: list[float] = []
        images_seen = 0
        for epoch in range(1, config.local_epochs + 1):
            loss_sum = torch.zeros((), dtype=torch.float64, device=compute.device)
            seen = 0
            visit.epoch = epoch
            steps = list(method.steps(visit))
            check_steps(steps, visit, method)
            for (batch, rows), step in zip(
                images.batches([torch.cat(step.groups) for step in steps]), steps, strict=True
            ):
                loss = method.loss(look(visit, step, batch, rows), visit)
                check_loss(loss, method)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                _step(scaler, optimizer, proximal, config.gradient_clipping)
                method.end_step(visit)
                loss_sum += loss.detach() * len(rows)
                seen += len(rows)
            mean_loss = float(loss_sum) / seen
            if not math.isfinite(mean_loss):
                raise FloatingPointError(
                    f"the loss became {mean_loss} in local epoch {epoch}; a smaller learning-rate"
                    f" than {config.learning_rate:g} may help"
                )
            epoch_losses.append(mean_loss)
            images_seen += seen
            method.end_epoch(visit)
        method.end(visit)
    check_left(visit, method, visit.told, classifier(visit.networks[0]).in_features)
    if visit.own is not None:
        keep_own(visit.own, visit.state)
    if method.relabels:
        visit.corrected = visit.labels
    return TrainingReport(epoch_losses, images_seen + alone.images_seen, time.perf_counter() - started, visit)


def _begun(config: RunConfig, server_round: int, module: nn.Module) -> LocalOptimizer:
    """The run's optimiser for another module, ready for a round's steps."""
    optimizer = make_optimizer(config, module)
    optimizer.begin(rate_of(config, server_round), config.momentum, config.weight_decay)
    return optimizer


def _look(
    visit: Visit, step: Step, images: Tensor, rows: Tensor, method: Method, config: RunConfig, compute: Compute
) -> Batch:
    """The networks' answers to the views of a batch, which are drawn for each network alone."""
    assert visit.inference is not None
    labels, sizes = visit.labels[rows], tuple(len(group) for group in step.groups)
    answers = []
    for number in range(len(visit.networks)) if step.network is None else (step.network,):
        network, seen = visit.networks[number], []
        inputs = visit.inference.inputs(images, method.views(config.augmentation), visit.generator)
        trained_on = method.mix(Seen(rows, labels, sizes, number, inputs), visit)
        check_mixed(trained_on, method, images.ndim)
        for mixed in trained_on:
            with compute.autocast(), features_of(network, wanted=method.features) as features:
                logits = network(mixed)
            seen.append(View(mixed, logits.float(), *features))
        answers.append(seen)
    return Batch(rows, labels, answers, sizes, step.network)


def _step(
    scaler: torch.amp.GradScaler, optimizer: LocalOptimizer, proximal: "ProximalTerm | None", clipping: float
) -> None:
    """One step along the scaled gradients of a loss, which are dropped; `clipping` is their greatest length, if any."""
    optimizer.take_gradients()
    if proximal is not None or clipping:
        scaler.unscale_(optimizer)  # type: ignore[arg-type]
    if proximal is not None:
        proximal.add_gradient()
    if clipping:
        optimizer.clip_gradients(clipping)
    scaler.step(optimizer)  # type: ignore[arg-type]
    scaler.update()
    optimizer.zero_grad()


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
        """Add to the gradients of the loss, which must be there and unscaled."""
        # A weight that the loss does not reach stays where it is, and its term stays 0.
        weights, starts, gradients = [], [], []
        for parameter, start in zip(self._parameters, self._start, strict=True):
            if parameter.grad is not None:
                weights.append(parameter)
                starts.append(start)
                gradients.append(parameter.grad)
        # One kernel for all tensors, as in torch's optimisers.
        torch._foreach_add_(gradients, torch._foreach_sub(weights, starts), alpha=self._mu)


def _num_classes(model: nn.Module) -> int:
    return classifier(networks_of(model)[0]).out_features
