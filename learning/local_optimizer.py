"""What optimisers of a client share: parameters as runs of memory, and buffers that a process keeps.

Every visit clears the buffers, none reallocates them. On a CPU, PyTorch's fused kernels expect contiguous tensors, and
copy weights in channels-last layout back and forth, which takes longer than the update. Optimisers are elementwise, so
there each parameter is handed to them as the run of memory that it is. A GPU's kernels take any dense layout, and the
host is spared the work.
"""

from typing import Any

import torch
from torch import Tensor, nn

from task import networks_of


class LocalOptimizer:
    """Updates the trainable parameters of one model, on one device; its memory of steps starts from zero in each visit.

    A subclass calls a function behind one of PyTorch's optimisers. Their classes import torch's compiler when an
    instance is made, which takes a second or two and 165 MiB in each process. What `torch.amp.GradScaler` needs of an
    optimiser is here: `param_groups`, `step`, and `_step_supports_amp_scaling`, with which it sets `grad_scale` and
    `found_inf` during a step instead of asking the device whether to skip it.
    """

    def __init__(self, model: nn.Module, in_runs: bool | None = None) -> None:
        """`model` must stay on its device; its weights may change.

        Args:
            model: Its trainable parameters are updated.
            in_runs: Whether the kernel gets them as runs of memory; None: on a CPU.
        """
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        networks = [[value for value in one.parameters() if value.requires_grad] for one in networks_of(model)]
        self._by_network = [parameters for parameters in networks if parameters]
        on_cpu = all(parameter.device.type == "cpu" for parameter in self._parameters)
        self._in_runs = on_cpu if in_runs is None else in_runs
        runs = [_run_of_memory(parameter.detach()) for parameter in self._parameters]
        self._runs: list[Tensor] = runs if self._in_runs else list(self._parameters)
        groups: list[dict[str, Any]] = [
            {"params": [run for run in self._runs if self.is_fused(run) is fused], "fused": fused}
            for fused in (True, False)
        ]
        self.param_groups = [group for group in groups if group["params"]]
        self._step_supports_amp_scaling = any(run.device.type != "cpu" for run in self._runs)  # there all are fused
        self._learning_rate = self._momentum = self._weight_decay = 0.0

    def is_fused(self, run: Tensor) -> bool:
        """Whether PyTorch's fused kernel updates this one, in one pass over memory; on a GPU it must."""
        return run.device.type != "cpu"

    def forget(self) -> None:
        """Set all that earlier steps left to zero; the first time, make it."""
        raise NotImplementedError

    def update(self, runs: list[Tensor], gradients: list[Tensor], **how: Any) -> None:
        """One step on some of the runs; `how` is for PyTorch's function."""
        raise NotImplementedError

    def begin(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Start a visit: momentum starts from zero, as in FedAvg (McMahan et al., 2017)."""
        self._learning_rate, self._momentum, self._weight_decay = learning_rate, momentum, weight_decay
        self.forget()
        self.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights that have a gradient."""
        scaling = {name: getattr(self, name, None) for name in ("grad_scale", "found_inf")}
        for group in self.param_groups:
            runs = [run for run in group["params"] if run.grad is not None]
            self.update(runs, [run.grad for run in runs], fused=group["fused"], **scaling)

    def take_gradients(self) -> None:
        """Hand the model's gradients over, in place; after `backward`, before anything that reads or scales them."""
        for weight, run in zip(self._parameters, self._runs, strict=True):
            gradient = weight.grad
            if gradient is not None and gradient.stride() != weight.stride():
                gradient = weight.grad = torch.empty_like(weight).copy_(gradient)
            if self._in_runs:
                run.grad = None if gradient is None else gradient.as_strided(run.shape, (1,))

    def clip_gradients(self, most: float) -> None:
        """Shorten the gradient of all parameters of a network together to the length `most`, by PyTorch's rule.

        Networks that are trained side by side are clipped each by itself. The gradients must be unscaled, and
        `take_gradients` called. Nothing waits for the device: a gradient that is short enough is multiplied by 1.
        """
        for parameters in self._by_network:
            nn.utils.clip_grad_norm_(parameters, most)

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
