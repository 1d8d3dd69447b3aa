"""No framework: a loop over the sampled clients in one process on all cores.

In fp32 and PyTorch's default layout it is what an unskilled loop takes; with ``--fast``, channels-last bf16 autocast,
what a skilled one takes.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers.job import Job, Report
from benchmarks.peers.learning import accuracy, batches, build_model, count_steps, load, train_epoch


def fedavg(job: Job, fast: bool, after_round: Callable[[nn.Module], None]) -> nn.Module:
    """The final global model; `after_round` sees that of each round."""
    model = build_model(job)
    if fast:
        model = model.to(memory_format=torch.channels_last)
    clients = [load(job, f"client-{number}") for number in range(job.clients)]
    generator = torch.Generator().manual_seed(job.weights_seed)
    for cohort in job.cohorts:
        start = {name: value.clone() for name, value in model.state_dict().items()}
        total: dict[str, Tensor] = {}
        for client in cohort:
            model.load_state_dict(start)
            train_epoch(job, model, batches(job, *clients[client], generator), fast)
            add(total, model.state_dict(), 1 / len(cohort))
        model.load_state_dict(total)
        after_round(model)
    return model


def add(total: dict[str, Tensor], state: dict[str, Tensor], weight: float) -> None:
    """Add ``weight * state``; of BatchNorm's step counters, which have no mean, keep the largest."""
    for name, value in state.items():
        if name not in total:
            total[name] = value * weight if value.is_floating_point() else value.clone()
        elif value.is_floating_point():
            total[name].add_(value, alpha=weight)
        else:
            total[name] = torch.maximum(total[name], value)


def main(job: Job, result: str, fast: bool) -> None:
    count_steps(job)
    report = Report("torch")
    images, labels = load(job, "test")
    fedavg(job, fast, lambda model: report.round_done(accuracy(model, images, labels)))
    report.write(result)


if __name__ == "__main__":
    main(Job.read(sys.argv[1]), sys.argv[2], fast="--fast" in sys.argv)
