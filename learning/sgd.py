"""SGD with momentum, Nesterov's if wanted, and weight decay as a part of the gradient."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from config.parameters import check_parameters, parameter
from config.rules import true_or_false
from learning.local_optimizer import LocalOptimizer

# On the CPU the fused kernel rounds as the plain one does, except at the end of a tensor whose length is not a multiple
# of its vectors: there it multiplies and adds in one rounding. Such tensors, biases of the last layer, go to the plain
# kernel.
WHOLE = 16  # float32 numbers


@dataclass(frozen=True)
class SGDArgs:
    """What `optimizer-args` may say of SGD.

    Attributes:
        nesterov: Nesterov's momentum (Sutskever et al., ICML 2013), as in `torch.optim.SGD`.
    """

    nesterov: bool = parameter(False, true_or_false())

    def __post_init__(self) -> None:
        check_parameters(self)

    def on(self, model: nn.Module) -> "LocalSGD":
        return LocalSGD(model, nesterov=self.nesterov)


class LocalSGD(LocalOptimizer):
    """The steps of `torch.optim.SGD`, bit for bit on a CPU."""

    def __init__(self, model: nn.Module, in_runs: bool | None = None, nesterov: bool = False) -> None:
        super().__init__(model, in_runs)
        self._nesterov = nesterov
        self._momenta: dict[Tensor, Tensor] = {}  # by run; made when first needed

    def is_fused(self, run: Tensor) -> bool:
        return run.device.type != "cpu" or run.numel() % WHOLE == 0

    def forget(self) -> None:
        if self._momentum:
            # From a zero buffer the first step is that of a new optimiser, which starts from the gradient itself.
            # PyTorch would allocate it in that step, and leave it unset if GradScaler skips the step.
            for run in self._runs:
                if run in self._momenta:
                    self._momenta[run].zero_()
                else:
                    self._momenta[run] = torch.zeros_like(run)

    def update(self, runs: list[Tensor], gradients: list[Tensor], **how: Any) -> None:
        sgd(
            runs,
            gradients,
            [self._momenta[run] for run in runs] if self._momentum else [],
            lr=self._learning_rate,
            momentum=self._momentum,
            weight_decay=self._weight_decay,
            nesterov=self._nesterov,
            dampening=0.0,
            maximize=False,
            **how,
        )
