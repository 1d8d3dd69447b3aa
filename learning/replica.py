"""The model that a process trains, and its optimiser: made once, overwritten by every visit."""

import contextlib
import os
import shutil
from functools import cached_property, lru_cache

import torch
from torch import nn

from config.run_config import ConfigError, RunConfig
from learning.network import NetworkSpec, build
from learning.optimizer import LocalOptimizer, make_optimizer
from learning.shared_state import frozen_digest
from task import networks_of


class Replica:
    """A model on a device, and the optimiser that trains it, which is made when a visit first needs it.

    Attributes:
        model: Its shared weights are overwritten by each visit.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._optimizers: dict[tuple[str, str], LocalOptimizer] = {}  # one at most

    @cached_property
    def frozen(self) -> str:
        """Hash of what does not travel, see `learning.shared_state.frozen_digest`."""
        return frozen_digest(self.model)

    def optimizer(self, config: RunConfig) -> LocalOptimizer:
        """The one that `optimizer` and `optimizer-args` ask for; another one takes its place, and its memory."""
        chosen = config.optimizer, config.optimizer_args
        if chosen not in self._optimizers:
            self._optimizers.clear()
            self._optimizers[chosen] = make_optimizer(config, self.model)
        return self._optimizers[chosen]


@lru_cache(maxsize=1)
def kept_replica(spec: NetworkSpec, device: torch.device, compiled: bool) -> Replica:
    """This process's model; only one, since the next visit overwrites all that a visit leaves in it.

    A compiled model is compiled at its first batch. Its parameters keep their names and memory.
    """
    model = build(spec).to(device)
    if compiled:
        for network in networks_of(model):
            network.compile(dynamic=False)
    return Replica(model)


def as_written(config: RunConfig) -> contextlib.AbstractContextManager[None]:
    """Within, no network is compiled, for batches of other shapes than those of training.

    The compiler gives up on a network after a few shapes, and which steps it still compiles decides their last bits.
    """
    return torch.compiler.set_stance("force_eager") if config.compile else contextlib.nullcontext()


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
