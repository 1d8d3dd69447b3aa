"""What contenders share of learning: images, initial weights, the plain loop, the test, and the count of SGD steps."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.hooks import RemovableHandle

from benchmarks.peers.job import Job
from benchmarks.tools.bare_loop import train
from benchmarks.tools.plain_app.fedavg import task
from benchmarks.tools.plain_app.fedavg.task import load_arrays

Batches = DataLoader[tuple[Tensor, ...]]


def load(job: Job, name: str) -> tuple[Tensor, Tensor]:
    """Normalised images, (n, 3, size, size) float32, and labels, (n,) int64, of ``client-3`` or of ``test``."""
    return load_arrays(Path(job.folder) / f"{name}.npz")


def build_model(job: Job) -> nn.Module:
    """With the weights that every contender starts from."""
    return task.build_model(job.model, job.classes, job.weights_seed)


def batches(job: Job, images: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Batches:
    """Shuffled in each epoch."""
    return DataLoader(TensorDataset(images, labels), job.batch_size, shuffle=True, generator=generator)


def train_epoch(job: Job, model: nn.Module, loader: Batches, fast: bool = False) -> None:
    """One epoch in place; `fast` is channels-last bf16 autocast, for a model in that layout."""
    sgd = torch.optim.SGD(model.parameters(), job.learning_rate, job.momentum, weight_decay=job.weight_decay)
    form = torch.channels_last if fast else torch.contiguous_format
    inputs = ((images.contiguous(memory_format=form), labels) for images, labels in loader)
    train(model, inputs, sgd, torch.bfloat16 if fast else torch.float32)


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy, 0 to 1; leaves the model in evaluation mode."""
    model.eval()
    return float((model(images).argmax(dim=1) == labels).double().mean())


def count_steps(job: Job) -> RemovableHandle:
    """From here on, each SGD step with the job's momentum in this process and those that it forks adds a byte to
    the job's file, which any number of processes may do at once. It does so whatever loop a framework has; a step of a
    server's optimiser, which has no momentum, is none.
    """
    file = os.open(Path(job.folder) / "steps", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if optimizer.defaults["momentum"] == job.momentum:
            os.write(file, b"+")

    return register_optimizer_step_post_hook(count)
