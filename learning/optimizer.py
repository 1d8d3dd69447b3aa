"""SGD whose buffers a process keeps: every visit clears them, none reallocates them.

PyTorch's fused kernel updates a weight in one pass over memory instead of four. On a CPU it expects contiguous tensors,
and copies weights in channels-last layout back and forth, which takes longer than the update. SGD is elementwise, so
there each parameter is handed to it as the run of memory that it is. A GPU's kernel takes any dense layout, and the
host is spared the work.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from config.parameters import check_parameters, parameter
from config.rules import interval, true_or_false


@dataclass(frozen=True)
class SGDArgs:
    """What `optimizer-args` may say of SGD.

    Attributes:
        nesterov: Nesterov's momentum (Sutskever et al., ICML 2013), as in `torch.optim.SGD`.
    """

    nesterov: bool = parameter(False, true_or_false())

    def __post_init__(self) -> None:
        check_parameters(self)


@dataclass(frozen=True)
class AdamWArgs:
    """What `optimizer-args` may say of AdamW (Loshchilov and Hutter, ICLR 2019); defaults are `torch.optim.AdamW`'s.

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


OPTIMIZERS = {"sgd": SGDArgs, "adamw": AdamWArgs}

# On the CPU the fused kernel rounds as the plain one does, except at the end of a tensor whose length is not a multiple
# of its vectors: there it multiplies and adds in one rounding. Such tensors, biases of the last layer, go to the plain
# kernel.
WHOLE = 16  # float32 numbers


class LocalSGD:
    """SGD with momentum and weight decay over the trainable parameters of one model, on one device.

    It calls the function behind `torch.optim.SGD`. That class imports torch's compiler when an instance is made, which
    takes a second or two and 165 MiB in each process. What `torch.amp.GradScaler` needs of an optimiser is here:
    `param_groups`, `step`, and `_step_supports_amp_scaling`, with which it sets `grad_scale` and `found_inf` during a
    step instead of asking the device whether to skip it.
    """

    def __init__(self, model: nn.Module, in_runs: bool | None = None) -> None:
        """`model` must stay on its device; its weights may change.

        Args:
            model: Its trainable parameters are updated.
            in_runs: Whether the kernel gets them as runs of memory; None: on a CPU.
        """
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        on_cpu = all(parameter.device.type == "cpu" for parameter in self._parameters)
        self._in_runs = on_cpu if in_runs is None else in_runs
        runs = [_run_of_memory(parameter.detach()) for parameter in self._parameters]
        self._runs: list[Tensor] = runs if self._in_runs else list(self._parameters)
        fused = [run for run in self._runs if run.device.type != "cpu" or run.numel() % WHOLE == 0]
        plain = [run for run in self._runs if run.device.type == "cpu" and run.numel() % WHOLE]
        groups: list[dict[str, Any]] = [{"params": fused, "fused": True}, {"params": plain, "fused": False}]
        self.param_groups = [group for group in groups if group["params"]]
        self._momenta: dict[Tensor, Tensor] = {}  # by run; made when first needed
        self._step_supports_amp_scaling = any(run.device.type != "cpu" for run in self._runs)  # there all are fused
        self._learning_rate = self._momentum = self._weight_decay = 0.0

    def begin(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Start a visit: momentum starts from zero, as in FedAvg (McMahan et al., 2017)."""
        self._learning_rate, self._momentum, self._weight_decay = learning_rate, momentum, weight_decay
        if momentum:
            # From a zero buffer the first step is that of a new optimiser, which starts from the gradient itself.
            # PyTorch would allocate it in that step, and leave it unset if GradScaler skips the step.
            for run in self._runs:
                if run in self._momenta:
                    self._momenta[run].zero_()
                else:
                    self._momenta[run] = torch.zeros_like(run)
        self.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            runs = [run for run in group["params"] if run.grad is not None]
            sgd(
                runs,
                [run.grad for run in runs],
                [self._momenta[run] for run in runs] if self._momentum else [],
                fused=group["fused"],
                lr=self._learning_rate,
                momentum=self._momentum,
                weight_decay=self._weight_decay,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

    def take_gradients(self) -> None:
        """Hand the model's gradients over, in place; after `backward`, before anything that reads or scales them."""
        for weight, run in zip(self._parameters, self._runs, strict=True):
            gradient = weight.grad
            if gradient is not None and gradient.stride() != weight.stride():
                gradient = weight.grad = torch.empty_like(weight).copy_(gradient)
            if self._in_runs:
                run.grad = None if gradient is None else gradient.as_strided(run.shape, (1,))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients; best right after a step, so that they are gone when the next batch needs memory."""
        for weight, run in zip(self._parameters, self._runs, strict=True):
            weight.grad = run.grad = None


def _run_of_memory(value: Tensor) -> Tensor:
    """All numbers of a dense tensor in memory order, (n,), as a view.

    Raises:
        ValueError: It has gaps or overlaps.
    """
    order = sorted(range(value.dim()), key=value.stride, reverse=True)
    if not value.permute(order).is_contiguous():
        raise ValueError(f"a weight of shape {tuple(value.shape)} and strides {value.stride()} is not dense")
    return value.as_strided((value.numel(),), (1,))
