"""The optimisers that `optimizer` names. A new one is a file like `learning.sgd`, and a line in the table."""

from typing import Protocol

from torch import nn

from config.named import build_named
from config.run_config import RunConfig
from learning.adamw import AdamWArgs
from learning.local_optimizer import LocalOptimizer as LocalOptimizer
from learning.sgd import LocalSGD as LocalSGD  # what most code and tests that train without a run config use
from learning.sgd import SGDArgs


class OptimizerArgs(Protocol):
    """What `optimizer-args` may say: a dataclass of parameters."""

    def on(self, model: nn.Module) -> LocalOptimizer:
        """An optimiser of the model's trainable parameters."""


OPTIMIZERS: dict[str, type[OptimizerArgs]] = {"sgd": SGDArgs, "adamw": AdamWArgs}


def make_optimizer(config: RunConfig, model: nn.Module) -> LocalOptimizer:
    """The optimiser that `optimizer` and `optimizer-args` ask for, of the model's trainable parameters.

    Raises:
        ConfigError: An unknown name or parameter, or a value that is not allowed.
    """
    args: OptimizerArgs = build_named("optimizer", OPTIMIZERS, config.optimizer, config.optimizer_args)
    return args.on(model)
