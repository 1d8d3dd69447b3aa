"""A small network with BatchNorm, and what clients could send back of it."""

import numpy as np
import torch
from torch import nn

from server_app.strategies.batchnorm import is_counter


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )


def state_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def moved(sent: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A client's model: moved weights, variances that are sometimes tiny and sometimes large, counters of its own."""
    model = {}
    for name, value in sent.items():
        if name.endswith("running_var"):
            new = 10.0 ** rng.uniform(-8, 2, value.shape)
        elif is_counter(name, value.dtype):
            new = value + rng.integers(1, 50)
        else:
            new = value + rng.normal(scale=0.1, size=value.shape)
        model[name] = np.asarray(new, dtype=value.dtype)
    return model
