"""Draws from PyTorch's global generators: those of layers such as dropout and stochastic depth, which take no other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from task import derived_seed


@contextmanager
def derived_draws(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Within, the global generators of the CPU and of `device` are seeded; afterwards they are as they were before.

    Args:
        generator: The visit's own, from whose seed theirs derives; nothing is drawn from it.
        device: The CPU, or a GPU: the current one if it has no index.
    """
    seed = derived_seed(generator.initial_seed(), "layers that draw")
    gpus = [] if device.type == "cpu" else [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which seeds all other GPUs as well
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield
