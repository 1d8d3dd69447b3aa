"""What contenders share of learning: images, initial weights, the plain loop, the test, and the count of SGD steps."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.hooks import RemovableHandle

from benchmarks.peers.job import Job

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as torchvision has them
Batches = DataLoader[tuple[Tensor, ...]]


def load(job: Job, name: str) -> tuple[Tensor, Tensor]:
    """Normalised images, (n, 3, size, size) float32, and labels, (n,) int64, of ``client-3`` or of ``test``."""
    with np.load(Path(job.folder) / f"{name}.npz") as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    return ((images.float() / 255 - mean) / deviation).permute(0, 3, 1, 2).contiguous(), labels


def build_model(job: Job) -> nn.Module:
    """With the weights that every contender starts from; no global generator is left seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.weights_seed)
        model: nn.Module = torchvision.models.get_model(
            job.model, weights=None, num_classes=job.classes, zero_init_residual=True
        )
    return model


def sgd(job: Job, model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(), lr=job.learning_rate, momentum=job.momentum, weight_decay=job.weight_decay
    )


def batches(job: Job, images: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Batches:
    """Shuffled in each epoch."""
    return DataLoader(TensorDataset(images, labels), job.batch_size, shuffle=True, generator=generator)


def train(job: Job, model: nn.Module, loader: Batches, fast: bool = False) -> None:
    """One epoch in place; `fast` is channels-last bf16 autocast, for a model in that layout."""
    optimizer = sgd(job, model)
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext():
            inputs = images.contiguous(memory_format=torch.channels_last) if fast else images
            loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


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
