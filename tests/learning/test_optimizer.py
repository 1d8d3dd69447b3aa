"""The kept optimiser against PyTorch's own, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from config.run_config import ConfigError, RunConfig
from learning.adamw import AdamWArgs, LocalAdamW
from learning.local_optimizer import LocalOptimizer
from learning.optimizer import OPTIMIZERS, LocalSGD, make_optimizer


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


def _train(model: Weights, optimizer: LocalOptimizer | torch.optim.Optimizer, seed: int, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in model.all:
            parameter.grad = torch.randn(parameter.shape, generator=generator).mul_(0.1)
            if parameter.stride() != parameter.grad.stride() and seed % 2:  # as autograd lays them out; mostly
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        if isinstance(optimizer, LocalOptimizer):
            optimizer.take_gradients()
        optimizer.step()
        optimizer.zero_grad()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**20), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 5e-4]), st.booleans(), st.booleans()
)  # fmt: skip
def test_visits_with_kept_buffers_equal_new_optimisers_bit_for_bit(
    seed: int, momentum: float, decay: float, in_runs: bool, nesterov: bool
) -> None:
    """In runs, as on a CPU, and without, as on a GPU."""
    model = Weights(*_tensors(seed))
    plain = copy.deepcopy(model)
    nesterov = nesterov and momentum > 0
    kept = LocalSGD(model, in_runs, nesterov)
    for visit in (0, 1):
        kept.begin(0.01, momentum, decay)
        _train(model, kept, seed + visit)
        new = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=momentum, weight_decay=decay, nesterov=nesterov)
        _train(plain, new, seed + visit)
    for one, other in zip(model.all, plain.all, strict=True):
        assert torch.equal(one, other)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**20), st.sampled_from([(0.9, 0.999), (0.0, 0.99), (0.8, 0.0)]), st.sampled_from([0.0, 0.01]),
    st.sampled_from([1e-8, 1e-3]), st.booleans(),
)  # fmt: skip
def test_visits_with_adamw_equal_new_optimisers_bit_for_bit(
    seed: int, betas: tuple[float, float], decay: float, eps: float, in_runs: bool
) -> None:
    """Means of gradients and counters of steps start from zero in each visit; `momentum` is ignored."""
    model = Weights(*_tensors(seed))
    plain = copy.deepcopy(model)
    kept = LocalAdamW(model, in_runs, AdamWArgs(*betas, eps=eps))
    for visit in (0, 1):
        kept.begin(0.01, 0.9, decay)
        _train(model, kept, seed + visit, steps=4)
        new = torch.optim.AdamW(plain.parameters(), lr=0.01, betas=betas, eps=eps, weight_decay=decay)
        _train(plain, new, seed + visit, steps=4)
    for one, other in zip(model.all, plain.all, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_buffers_are_allocated_once_and_gradients_dropped_after_each_step(name: str) -> None:
    model = Weights(*_tensors(0))
    optimizer: Any = make_optimizer(RunConfig(optimizer=name), model)
    places = []
    for visit in (0, 1):
        optimizer.begin(0.01, 0.9, 0.0)
        _train(model, optimizer, visit)
        kept = [kept for memory in optimizer._memory.values() for kept in memory] if name == "adamw" else []
        places.append(sorted(one.data_ptr() for one in kept or optimizer._momenta.values()))
    assert places[0] == places[1]
    assert len(places[0]) == len(model.all) * (3 if name == "adamw" else 1)
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


def _take_scaled_steps(model: Weights, optimizer: Any, unscaled_first: bool = False) -> None:
    """Five steps, two of which overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
    for factor in (1e3, 1e-3, 1e-3, 1e3, 1e-3):
        scaler.scale(sum((value * value).sum() * factor for value in model.all)).backward()
        if isinstance(optimizer, LocalOptimizer):
            optimizer.take_gradients()
        if unscaled_first:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert not hasattr(optimizer, "found_inf")


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
        _take_scaled_steps(model, optimizer, unscaled_first)
    for one, other, first in zip(ours.all, theirs.all, before.all, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)
        assert not torch.equal(one, first)


def test_with_grad_scaler_it_is_pytorchs_fused_adamw_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: a step that overflows is skipped, and does not count."""
    monkeypatch.setattr(LocalAdamW, "is_fused", lambda self, run: True)
    ours = Weights(*(value for value in _tensors(4) if value.is_contiguous()))
    theirs, before = copy.deepcopy(ours), copy.deepcopy(ours)
    kept = LocalAdamW(ours)
    kept._step_supports_amp_scaling = True
    for _ in range(2):
        kept.begin(0.01, 0.0, 0.01)
        new = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.01, fused=True)
        optimizers: list[tuple[Weights, Any]] = [(ours, kept), (theirs, new)]
        for model, optimizer in optimizers:
            _take_scaled_steps(model, optimizer)
        assert {float(steps) for _, _, steps in kept._memory.values()} == {3.0}
    for one, other, first in zip(ours.all, theirs.all, before.all, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)
        assert not torch.equal(one, first)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.floats(1e-3, 100), st.booleans())
def test_clipped_gradients_are_pytorchs_bit_for_bit(seed: int, most: float, in_runs: bool) -> None:
    """In place, so that the kernel gets them; weights without a gradient do not count."""
    model = Weights(*_tensors(seed))
    plain = copy.deepcopy(model)
    kept = LocalSGD(model, in_runs)
    kept.begin(1.0, 0.0, 0.0)
    generator = torch.Generator().manual_seed(seed)
    for number, (one, other) in enumerate(zip(model.all, plain.all, strict=True)):
        if number != 3:
            other.grad = torch.empty_like(other).copy_(torch.randn(other.shape, generator=generator))
            one.grad = other.grad.clone()
    kept.take_gradients()
    kept.clip_gradients(most)
    kept.step()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), most)
    torch.optim.SGD(plain.parameters(), lr=1.0).step()
    for one, other in zip(model.all, plain.all, strict=True):
        assert torch.equal(one, other)


def test_a_gradient_is_shortened_to_the_length_and_a_shorter_one_is_kept() -> None:
    """(3, 4) and 12 have the length 13; at most 6.5 halves them, up to the 1e-6 that PyTorch adds."""
    model = Weights(torch.zeros(2), torch.zeros(1))
    optimizer = LocalSGD(model)
    for most, expected in ((6.5, [1.5, 2.0, 6.0]), (13.1, [3.0, 4.0, 12.0])):
        optimizer.begin(1.0, 0.0, 0.0)
        model.all[0].grad, model.all[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
        optimizer.take_gradients()
        optimizer.clip_gradients(most)
        found = [value for weight in model.all for value in weight.grad.tolist()]
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_config_names_the_optimiser_and_its_parameters() -> None:
    model = Weights(torch.ones(16))
    plain = make_optimizer(RunConfig(), model)
    assert isinstance(plain, LocalSGD)
    assert not plain._nesterov
    nesterov: Any = make_optimizer(RunConfig(optimizer_args="nesterov=true"), model)
    assert nesterov._nesterov
    adamw: Any = make_optimizer(RunConfig(optimizer="adamw", optimizer_args="beta1=0.8 eps=1e-6"), model)
    assert adamw._args == AdamWArgs(beta1=0.8, beta2=0.999, eps=1e-6)
    for args, sentence in (
        ("momentum=0.9", "'optimizer-args' names 'momentum'; adamw takes beta1, beta2, eps"),
        ("beta2=1.0", "adamw refuses it: beta2 must be a number at least 0 and below 1"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make_optimizer(RunConfig(optimizer="adamw", optimizer_args=args), model)


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
