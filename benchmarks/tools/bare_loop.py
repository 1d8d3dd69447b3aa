"""A plain PyTorch loop over clients in a process of its own: the steps of local training, and nothing else.

No messages, no aggregation, no evaluation, no files; random images that are in memory from the start. Written without
the app's own training code, as somebody would who knows PyTorch well: channels-last, autocast, fused SGD.

`bare_rounds` starts one process or several; each trains its part of the clients of a round one after the other, with an
equal share of the cores, and all begin a round together.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


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
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with _started(load, clients // processes, processes, threads) as workers:
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            for worker in workers:
                _say(worker, "go")
            for worker in workers:
                _hear(worker)
            seconds.append(time.perf_counter() - began)
        return seconds


@contextlib.contextmanager
def _started(load: Load, visits: int, processes: int, threads: int) -> Iterator[list["subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "benchmarks.tools.bare_loop", json.dumps(asdict(load)), str(visits)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            workers.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
        for worker in workers:
            _hear(worker)
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _say(worker: "subprocess.Popen[str]", word: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(word + "\n")
    worker.stdin.flush()


def _hear(worker: "subprocess.Popen[str]") -> None:
    assert worker.stdout is not None
    if not worker.stdout.readline():
        raise RuntimeError(f"a bare loop ended with exit code {worker.wait()}; what it printed says why.")


def work(load: Load, visits: int) -> None:
    """Warm up, say so, then train `visits` clients for each line on stdin."""
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)  # this process trains nothing that is kept
    model: Any = torchvision.models.get_model(load.model, weights=None, num_classes=load.classes)
    model = model.to(memory_format=torch.channels_last).train()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randint(256, (load.images, load.image_size, load.image_size, 3), dtype=torch.uint8)
    labels = torch.randint(load.classes, (load.images,))
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))

    def visit(count: int) -> None:
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=load.learning_rate,
            momentum=load.momentum,
            weight_decay=load.weight_decay,
            fused=True,
        )
        for rows in torch.randperm(count).split(load.batch_size):  # type: ignore[no-untyped-call]
            inputs = images[rows].float().div_(255).sub_(mean).div_(deviation).permute(0, 3, 1, 2)
            with torch.autocast("cpu", torch.bfloat16, enabled=load.bf16):
                logits = model(inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    visit(load.batch_size)
    print("warm", flush=True)
    for _ in sys.stdin:
        for _ in range(visits):
            visit(load.images)
        print("done", flush=True)


if __name__ == "__main__":
    work(Load(**json.loads(sys.argv[1])), int(sys.argv[2]))
