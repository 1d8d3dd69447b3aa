"""What every contender does, and what they share: images, initial weights, the plain loop, the test, the report.

Each contender is a module that its own Python runs as ``python -m benchmarks.peers.<name> JOB RESULT``, so this one
needs numpy, torch and torchvision and nothing else of the project.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.hooks import RemovableHandle

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as torchvision has them
Batches = DataLoader[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Job:
    """FedAvg with one local epoch a round. All clients hold as many images, so the job has one number of steps,
    whichever clients a framework samples.

    Attributes:
        folder: Absolute; holds `client-0.npz`, ..., `test.npz` (`images` uint8 (n, size, size, 3), `labels` int64), and
            `steps`, one byte for each SGD step.
        model: A torchvision ResNet.
        classes: Outputs of the model.
        weights_seed: Of the initial weights.
        clients: N.
        cohorts: The clients of each round, all of one number, for those frameworks that let one choose.
        images: Of each client.
        image_size: Side in pixels.
        batch_size: A divisor of `images`: frameworks differ in what they do with an incomplete batch.
        learning_rate: Of SGD, as the next two; momentum starts from zero at each visit.
        momentum: At least 0, below 1.
        weight_decay: At least 0.
        workers: Clients that train at a time, where the framework can; they share the cores.

    Raises:
        ValueError: A job that frameworks would not share.
    """

    folder: str
    model: str
    classes: int
    weights_seed: int
    clients: int
    cohorts: tuple[tuple[int, ...], ...]
    images: int
    image_size: int
    batch_size: int
    learning_rate: float = 0.004
    momentum: float = 0.9
    weight_decay: float = 5e-4
    workers: int = 2

    def __post_init__(self) -> None:
        if self.images % self.batch_size:
            raise ValueError(f"'images' is {self.images}; it must be a multiple of 'batch-size' ({self.batch_size}).")
        if len(self.cohorts) < 2:
            raise ValueError(
                f"'rounds' is {len(self.cohorts)}; it must be at least 2, since the first is counted apart."
            )
        if not 1 <= self.sampled <= self.clients:
            raise ValueError(f"'sampled' is {self.sampled}; it must be from 1 to 'clients' ({self.clients}).")

    @property
    def sampled(self) -> int:
        """Clients of a round."""
        return len(self.cohorts[0])

    @property
    def steps(self) -> int:
        """SGD steps of all clients in all rounds."""
        return sum(len(cohort) for cohort in self.cohorts) * (self.images // self.batch_size)

    @property
    def threads(self) -> int:
        """Of each worker: its share of the cores that may be used."""
        return max(1, len(os.sched_getaffinity(0)) // self.workers)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Job":
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**values, "cohorts": tuple(tuple(cohort) for cohort in values["cohorts"])})

    def load(self, name: str) -> tuple[Tensor, Tensor]:
        """Normalised images, (n, 3, size, size) float32, and labels, (n,) int64, of ``client-3`` or of ``test``."""
        with np.load(Path(self.folder) / f"{name}.npz") as arrays:
            images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
        return ((images.float() / 255 - mean) / deviation).permute(0, 3, 1, 2).contiguous(), labels

    def build_model(self) -> nn.Module:
        """With the weights that every contender starts from; no global generator is left seeded."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.weights_seed)
            model: nn.Module = torchvision.models.get_model(
                self.model, weights=None, num_classes=self.classes, zero_init_residual=True
            )
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(
            model.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def batches(self, images: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Batches:
        """Shuffled in each epoch."""
        return DataLoader(TensorDataset(images, labels), self.batch_size, shuffle=True, generator=generator)


def train(model: nn.Module, batches: Batches, job: Job, fast: bool = False) -> None:
    """One epoch in place; `fast` is channels-last bf16 autocast, for a model in that layout."""
    optimizer = job.optimizer(model)
    model.train()
    for images, labels in batches:
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


class Report:
    """What a contender measures of itself: when each round was done and how good the global model was then."""

    def __init__(self, package: str) -> None:
        """`package` is what the table names, with its version."""
        self._version = f"{package} {version(package)}"
        self._rounds: list[dict[str, float]] = []

    def round_done(self, reached: float, when: float | None = None) -> None:
        """`reached` is the accuracy; `when` is of `time.perf_counter`, one clock for all processes on Linux."""
        self._rounds.append({"accuracy": reached, "end": time.perf_counter() if when is None else when})

    def write(self, path: str | Path) -> None:
        values = {"version": self._version, "torch": version("torch"), "rounds": self._rounds}
        Path(path).write_text(json.dumps(values), encoding="utf-8")
