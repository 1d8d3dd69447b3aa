"""SGD whose buffers a process keeps: every visit clears them, none reallocates them.

PyTorch's fused kernel updates a weight in one pass over memory instead of four. It expects contiguous tensors, and
copies weights in channels-last layout back and forth, which takes longer than the update. SGD is elementwise, so each
parameter is handed to it as the run of memory that it is.
"""

import torch
from torch import Tensor, nn

# On the CPU the fused kernel rounds as the plain one does, except at the end of a tensor whose length is not a multiple
# of its vectors: there it multiplies and adds in one rounding. Such tensors, biases of the last layer, go to the plain
# kernel.
WHOLE = 16  # float32 numbers


class LocalSGD(torch.optim.SGD):
    """SGD with momentum and weight decay over the trainable parameters of one model, on one device."""

    def __init__(self, model: nn.Module) -> None:
        """`model` must stay on its device; its weights may change."""
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._runs = [_run_of_memory(parameter.detach()) for parameter in self._parameters]
        fused = [run for run in self._runs if run.device.type != "cpu" or run.numel() % WHOLE == 0]
        plain = [run for run in self._runs if run.device.type == "cpu" and run.numel() % WHOLE]
        groups = [{"params": fused, "fused": True}, {"params": plain, "fused": False}]
        on_gpu = any(run.device.type != "cpu" for run in self._runs)  # there GradScaler must know that all are fused
        super().__init__([group for group in groups if group["params"]], lr=0.0, fused=on_gpu or None)

    def begin(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Start a visit: momentum starts from zero, as in FedAvg (McMahan et al., 2017)."""
        for group in self.param_groups:
            group.update(lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
        if momentum:
            # From a zero buffer the first step is that of a new optimiser, which starts from the gradient itself.
            # PyTorch would allocate it in that step, and leave it unset if GradScaler skips the step.
            for run in self._runs:
                if (buffer := self.state[run].get("momentum_buffer")) is None:
                    self.state[run]["momentum_buffer"] = torch.zeros_like(run)
                else:
                    buffer.zero_()
        self.zero_grad()

    def take_gradients(self) -> None:
        """Hand the model's gradients over, in place; after `backward`, before anything that reads or scales them."""
        for parameter, run in zip(self._parameters, self._runs, strict=True):
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                gradient = parameter.grad = torch.empty_like(parameter).copy_(gradient)
            run.grad = None if gradient is None else gradient.as_strided(run.shape, (1,))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients; best right after a step, so that they are gone when the next batch needs memory."""
        for parameter, run in zip(self._parameters, self._runs, strict=True):
            parameter.grad = run.grad = None


def _run_of_memory(value: Tensor) -> Tensor:
    """All numbers of a dense tensor in memory order, (n,), as a view.

    Raises:
        ValueError: It has gaps or overlaps.
    """
    order = sorted(range(value.dim()), key=value.stride, reverse=True)
    if not value.permute(order).is_contiguous():
        raise ValueError(f"a weight of shape {tuple(value.shape)} and strides {value.stride()} is not dense")
    return value.as_strided((value.numel(),), (1,))
