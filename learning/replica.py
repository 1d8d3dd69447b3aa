"""The model that a process trains, and its optimiser: made once, overwritten by every visit."""

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from config.run_config import ConfigError
from learning.optimizer import LocalSGD
from task import Heads, build_model, networks_of


@dataclass(frozen=True)
class Replica:
    """A model on a device, and the SGD that trains it."""

    model: nn.Module
    optimizer: LocalSGD


@lru_cache(maxsize=1)
def kept_replica(
    name: str, num_classes: int, device: torch.device, compiled: bool, networks: int = 1, heads: Heads = ()
) -> Replica:
    """This process's model; only one, since the next visit overwrites all that a visit leaves in it.

    A compiled model is compiled at its first batch. Its parameters keep their names and memory.
    """
    model = build_model(name, num_classes, seed=0, networks=networks, heads=heads).to(device)
    if compiled:
        for network in networks_of(model):
            network.compile(dynamic=False)
    return Replica(model, LocalSGD(model))


def check_compiler() -> None:
    """Check that `torch.compile` finds what it needs on this machine.

    Raises:
        ConfigError: There is no C++ compiler.
    """
    wanted = [os.environ.get("CXX"), "g++", "clang++"]
    if not any(name and shutil.which(name) for name in wanted):
        raise ConfigError(
            "run config: 'compile' is true, but this machine has no C++ compiler (g++, clang++, or what CXX names); it"
            " must be false, or one must be installed."
        )
