"""The model that a process trains, and its optimiser: made once, overwritten by every visit."""

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from config.run_config import ConfigError
from learning.network import NetworkSpec, build
from learning.optimizer import LocalSGD
from learning.shared_state import frozen_digest
from task import networks_of


@dataclass(frozen=True)
class Replica:
    """A model on a device, and what trains it.

    Attributes:
        model: Its shared weights are overwritten by each visit.
        optimizer: The model's.
        frozen: Hash of what does not travel, see `learning.shared_state.frozen_digest`.
    """

    model: nn.Module
    optimizer: LocalSGD
    frozen: str


@lru_cache(maxsize=1)
def kept_replica(spec: NetworkSpec, device: torch.device, compiled: bool) -> Replica:
    """This process's model; only one, since the next visit overwrites all that a visit leaves in it.

    A compiled model is compiled at its first batch. Its parameters keep their names and memory.
    """
    model = build(spec)
    frozen = frozen_digest(model)
    model = model.to(device)
    if compiled:
        for network in networks_of(model):
            network.compile(dynamic=False)
    return Replica(model, LocalSGD(model), frozen)


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
