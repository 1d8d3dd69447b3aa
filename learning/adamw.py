"""AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from config.parameters import check_parameters, parameter
from config.rules import interval
from learning.local_optimizer import LocalOptimizer


@dataclass(frozen=True)
class AdamWArgs:
    """What `optimizer-args` may say of AdamW; defaults are `torch.optim.AdamW`'s.

    Attributes:
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of their squares.
        eps: Added to the root of the latter.
    """

    beta1: float = parameter(0.9, interval(0, 1, open_high=True))
    beta2: float = parameter(0.999, interval(0, 1, open_high=True))
    eps: float = parameter(1e-8, interval(0, open_low=True))

    def __post_init__(self) -> None:
        check_parameters(self)

    def on(self, model: nn.Module) -> "LocalAdamW":
        return LocalAdamW(model, args=self)


class LocalAdamW(LocalOptimizer):
    """The steps of `torch.optim.AdamW`, bit for bit on a CPU.

    There PyTorch's own default is its plain kernel, from whose results the fused one differs. `momentum` is ignored:
    `beta1` is AdamW's. Weight decay shrinks all trained parameters, as PyTorch's default does.

    Attributes:
        function: What takes the steps.
    """

    function: ClassVar[Callable[..., None]] = staticmethod(adamw)

    def __init__(self, model: nn.Module, in_runs: bool | None = None, args: AdamWArgs | None = None) -> None:
        super().__init__(model, in_runs)
        self._args = args or AdamWArgs()
        # By run: the mean of gradients, the mean of their squares, and how many steps it took; made when first needed.
        self._memory: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {}

    def forget(self) -> None:
        if self._memory:
            torch._foreach_zero_([kept for memory in self._memory.values() for kept in memory])
        else:
            self._memory = {
                run: (torch.zeros_like(run), torch.zeros_like(run), torch.zeros((), device=run.device))
                for run in self._runs
            }

    def update(self, runs: list[Tensor], gradients: list[Tensor], **how: Any) -> None:
        memories = [self._memory[run] for run in runs]
        self.function(
            runs,
            gradients,
            [mean for mean, _, _ in memories],
            [squares for _, squares, _ in memories],
            [],
            [steps for _, _, steps in memories],
            lr=self._learning_rate,
            beta1=self._args.beta1,
            beta2=self._args.beta2,
            eps=self._args.eps,
            weight_decay=self._weight_decay,
            amsgrad=False,
            maximize=False,
            **how,
        )
