"""The plain PyTorch loop that this app and others are compared with, written without the app's own training code.

- `train` takes the steps, over whatever batches it is given.
- `bare_visit` is one epoch on random images in memory, written as somebody would who knows PyTorch well: channels-last,
  autocast, fused SGD. No messages, no aggregation, no evaluation, no files.
- `bare_rounds` starts one process or several; each trains its part of the clients of a round one after the other, with
  an equal share of the cores, and all begin a round together.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, as torchvision has them


@dataclass(frozen=True)
class Load:
    """What a client trains in one visit, for one epoch.

    Attributes:
        model: A torchvision ResNet.
        classes: Outputs of the model.
        images: Of each client.
        image_size: Side in pixels.
        batch_size: A divisor of `images`.
        bf16: Autocast to bfloat16, else all in float32.
        learning_rate: Of SGD, as the next two.
        momentum: Starts from zero at each visit.
        weight_decay: At least 0.
    """

    model: str
    classes: int
    images: int
    image_size: int
    batch_size: int
    bf16: bool
    learning_rate: float = 0.004
    momentum: float = 0.9
    weight_decay: float = 5e-4


def bare_rounds(load: Load, clients: int, processes: int, rounds: int) -> list[float]:
    """Seconds of each round of `clients`, after a warm-up of one batch; `clients` is a multiple of `processes`."""
    from probe.concurrent import tell, workers  # needs packages that other frameworks' environments lack

    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    command = ["benchmarks.tools.bare_loop", json.dumps(asdict(load)), str(clients // processes)]
    with workers(command, {"OMP_NUM_THREADS": str(threads)}, processes) as started:
        for worker in started:
            _hear(worker)
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            for worker in started:
                tell(worker, "go")
            for worker in started:
                _hear(worker)
            seconds.append(time.perf_counter() - began)
        return seconds


def _hear(worker: "subprocess.Popen[str]") -> None:
    assert worker.stdout is not None
    if not worker.stdout.readline():
        raise RuntimeError(f"a bare loop ended with exit code {worker.wait()}; what it printed says why.")


def train(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Take one step for each batch: normalised (n, 3, size, size) inputs and (n,) labels.

    Autocast to `dtype`, unless that is float32; losses of fp16 are scaled.
    """
    scaler = torch.amp.GradScaler(next(model.parameters()).device.type, enabled=dtype is torch.float16)
    model.train()
    for inputs, labels in batches:
        with torch.autocast(inputs.device.type, dtype, enabled=dtype is not torch.float32):
            logits = model(inputs)
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(logits.float(), labels)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()


def bare_visit(load: Load, device: torch.device, dtype: torch.dtype) -> Callable[[int], None]:
    """Training on the first `count` images, from the same weights each time it is called."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = torchvision.models.get_model(load.model, weights=None, num_classes=load.classes)
    model = model.to(device, memory_format=torch.channels_last)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    shape = (load.images, load.image_size, load.image_size, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(load.classes, (load.images,), device=device)
    mean, deviation = torch.tensor(MEAN, device=device), torch.tensor(DEVIATION, device=device)

    def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(count, device=device).split(load.batch_size):  # type: ignore[no-untyped-call]
            yield images[rows].float().div_(255).sub_(mean).div_(deviation).permute(0, 3, 1, 2), labels[rows]

    def visit(count: int) -> None:
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(
            model.parameters(), load.learning_rate, load.momentum, weight_decay=load.weight_decay, fused=True
        )
        train(model, batches(count), optimizer, dtype)

    return visit


def work(load: Load, visits: int) -> None:
    """Warm up, report it, then train `visits` clients for each line on stdin."""
    visit = bare_visit(load, torch.device("cpu"), torch.bfloat16 if load.bf16 else torch.float32)
    visit(load.batch_size)
    print("warm", flush=True)
    for _ in sys.stdin:
        for _ in range(visits):
            visit(load.images)
        print("done", flush=True)


if __name__ == "__main__":
    work(Load(**json.loads(sys.argv[1])), int(sys.argv[2]))
