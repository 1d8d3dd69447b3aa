"""The kept optimiser against PyTorch's own, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learning.optimizer import LocalSGD


class Weights(nn.Module):
    """Trainable tensors of any layout."""

    def __init__(self, *values: Tensor) -> None:
        super().__init__()
        self.all = nn.ParameterList([nn.Parameter(value) for value in values])


def _tensors(seed: int) -> list[Tensor]:
    """Biases of odd lengths, and convolutions in both layouts, with and without a remainder after whole vectors."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1,), (5,), (14,), (16,), (100,), (14, 64), (8, 4, 3, 3), (16, 1, 3, 3), (32, 8, 1, 1), (5, 3, 7, 7)]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    return values + [value.to(memory_format=torch.channels_last) for value in values if value.dim() == 4]


def _train(model: Weights, optimizer: LocalSGD | torch.optim.SGD, seed: int, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in model.all:
            parameter.grad = torch.randn(parameter.shape, generator=generator).mul_(0.1)
            if parameter.stride() != parameter.grad.stride() and seed % 2:  # as autograd lays them out; mostly
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        if isinstance(optimizer, LocalSGD):
            optimizer.take_gradients()
        optimizer.step()
        optimizer.zero_grad()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 5e-4]), st.booleans())
def test_visits_with_kept_buffers_equal_new_optimisers_bit_for_bit(
    seed: int, momentum: float, decay: float, in_runs: bool
) -> None:
    """In runs, as on a CPU, and without, as on a GPU."""
    model = Weights(*_tensors(seed))
    plain = copy.deepcopy(model)
    kept = LocalSGD(model, in_runs)
    for visit in (0, 1):
        kept.begin(0.01, momentum, decay)
        _train(model, kept, seed + visit)
        new = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=momentum, weight_decay=decay)
        _train(plain, new, seed + visit)
    for one, other in zip(model.all, plain.all, strict=True):
        assert torch.equal(one, other)


def test_buffers_are_allocated_once_and_gradients_dropped_after_each_step() -> None:
    model = Weights(*_tensors(0))
    optimizer = LocalSGD(model)
    places = []
    for visit in (0, 1):
        optimizer.begin(0.01, 0.9, 0.0)
        _train(model, optimizer, visit)
        places.append(sorted(momentum.data_ptr() for momentum in optimizer._momenta.values()))
    assert places[0] == places[1]
    assert len(places[0]) == len(model.all)
    assert all(parameter.grad is None for parameter in model.all)
    assert all(run.grad is None for group in optimizer.param_groups for run in group["params"])


def test_a_first_step_that_grad_scaler_skips_leaves_no_trace() -> None:
    """fp16 starts with a scale that is too large more often than not."""
    torch.use_deterministic_algorithms(True)  # fills whatever is allocated and not written with NaN
    try:
        fused = Weights(*(value for value in _tensors(3) if value.numel() % 16 == 0))
        plain = copy.deepcopy(fused)
        kept = LocalSGD(fused)
        kept._step_supports_amp_scaling = True  # as on a GPU, where the fused kernel skips the step
        kept.begin(0.01, 0.9, 5e-4)
        new = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for model, optimizer in ((fused, kept), (plain, new)):
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
            for factor in (1e3, 1e-3, 1e-3):  # the first overflows
                loss = sum((value * value).sum() * factor for value in model.all)
                scaler.scale(loss).backward()
                if isinstance(optimizer, LocalSGD):
                    optimizer.take_gradients()
                before = [value.detach().clone() for value in model.all]
                scaler.step(optimizer)  # type: ignore[arg-type]
                scaler.update()
                optimizer.zero_grad()
                if factor > 1:
                    assert all(torch.equal(one, other) for one, other in zip(before, model.all, strict=True))
        for one, other in zip(fused.all, plain.all, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("unscaled_first", [False, True])
def test_with_grad_scaler_it_is_pytorchs_fused_sgd_bit_for_bit(unscaled_first: bool) -> None:
    """The scaler hands the factor and the overflow to the kernel; FedProx unscales before it adds its gradient."""
    ours = Weights(*(value for value in _tensors(4) if value.numel() % 16 == 0 and value.is_contiguous()))
    theirs, before = copy.deepcopy(ours), copy.deepcopy(ours)
    kept = LocalSGD(ours)
    kept._step_supports_amp_scaling = True  # as on a GPU
    kept.begin(0.01, 0.9, 5e-4)
    new = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    for value in theirs.all:  # as `begin` does
        new.state[value]["momentum_buffer"] = torch.zeros_like(value)
    optimizers: list[tuple[Weights, Any]] = [(ours, kept), (theirs, new)]
    for model, optimizer in optimizers:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
        for factor in (1e3, 1e-3, 1e-3, 1e3, 1e-3):
            scaler.scale(sum((value * value).sum() * factor for value in model.all)).backward()
            if isinstance(optimizer, LocalSGD):
                optimizer.take_gradients()
            if unscaled_first:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            assert not hasattr(optimizer, "found_inf")
    for one, other, first in zip(ours.all, theirs.all, before.all, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)
        assert not torch.equal(one, first)


def test_a_weight_without_a_gradient_and_a_frozen_one_stay() -> None:
    model = Weights(torch.ones(16), torch.ones(16), torch.ones(3))
    model.all[2].requires_grad_(False)
    optimizer = LocalSGD(model)
    optimizer.begin(0.5, 0.9, 0.0)
    model.all[0].grad = torch.ones(16)
    optimizer.take_gradients()
    optimizer.step()
    assert model.all[0].tolist() == [0.5] * 16
    assert model.all[1].tolist() == [1.0] * 16
    assert model.all[2].tolist() == [1.0] * 3


def test_weights_with_gaps_in_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a weight of shape \(4, 2\) and strides \(4, 1\) is not dense"):
        LocalSGD(Weights(torch.ones(4, 4)[:, :2]))
