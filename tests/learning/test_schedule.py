"""Rates of rounds against PyTorch's schedulers stepped once a round, bit for bit."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR, StepLR

from config.run_config import ConfigError, RunConfig
from learning.schedule import SCHEDULES, check_rates, depends_on_rounds, rate_of, rates

SHARES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


def _config(schedule: str, rounds: int, warm_up: int, rate: float, **args: float) -> RunConfig:
    pairs = " ".join(f"{name}={value!r}" for name, value in args.items())
    return RunConfig(
        lr_schedule=schedule, lr_schedule_args=pairs, lr_warm_up=warm_up, num_server_rounds=rounds, learning_rate=rate
    )


def _pytorchs(config: RunConfig, **args: Any) -> list[float]:
    """What a plain loop of that many rounds sets, with a scheduler that is stepped after each."""
    rounds, warm_up = config.num_server_rounds, config.lr_warm_up
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    optimizer = torch.optim.SGD([weight], lr=config.learning_rate)
    after = rounds - warm_up

    def scheduler() -> LRScheduler:
        if config.lr_schedule == "cosine":
            return CosineAnnealingLR(optimizer, T_max=after, eta_min=args["final"] * config.learning_rate)
        if config.lr_schedule == "step":
            return StepLR(optimizer, step_size=args["every"], gamma=args["gamma"])
        if config.lr_schedule == "linear":
            return LinearLR(optimizer, start_factor=1, end_factor=args["final"], total_iters=after)
        return ConstantLR(optimizer, factor=1)

    if warm_up:
        climb = LinearLR(optimizer, start_factor=1 / (warm_up + 1), end_factor=1, total_iters=warm_up)
        whole: LRScheduler = SequentialLR(optimizer, [climb, scheduler()], milestones=[warm_up])
    else:
        whole = scheduler()
    found = []
    for _ in range(rounds):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        whole.step()
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULES)), st.integers(1, 120), st.integers(0, 40), st.floats(1e-6, 10), SHARES,
    st.integers(1, 40), st.floats(0.01, 1),
)  # fmt: skip
@example("cosine", 1, 0, 0.1, 0.0, 1, 0.1)
@example("cosine", 30, 7, 0.1, 0.3, 1, 0.1)
@example("cosine", 30, 7, 0.004, 1.0, 1, 0.1)
@example("linear", 30, 7, 0.004, 0.0, 1, 0.1)
def test_rates_are_those_of_pytorchs_schedulers_bit_for_bit(
    schedule: str, rounds: int, warm_up: int, rate: float, final: float, every: int, gamma: float
) -> None:
    of_schedule: dict[str, dict[str, Any]] = {
        "constant": {}, "cosine": {"final": final}, "linear": {"final": final},
        "step": {"every": every, "gamma": gamma},
    }  # fmt: skip
    args = of_schedule[schedule]
    config = _config(schedule, rounds, min(warm_up, rounds - 1), rate, **args)
    found = rates(config)
    assert found == _pytorchs(config, **args)
    assert min(found) > 0
    assert [rate_of(config, number) for number in range(1, rounds + 1)] == found
    assert rate_of(config, 0) == found[0]


@pytest.mark.parametrize(
    ("schedule", "warm_up", "args", "expected"),
    [
        ("constant", 0, {}, [1.0, 1.0, 1.0, 1.0]),
        ("constant", 3, {}, [0.25, 0.5, 0.75, 1.0]),
        ("cosine", 0, {}, [1.0, 0.853553, 0.5, 0.146447]),
        ("cosine", 0, {"final": 0.5}, [1.0, 0.926777, 0.75, 0.573223]),
        ("cosine", 2, {}, [1 / 3, 2 / 3, 1.0, 0.5]),
        ("step", 0, {"every": 2, "gamma": 0.5}, [1.0, 1.0, 0.5, 0.5]),
        ("step", 1, {"every": 2, "gamma": 0.5}, [0.5, 1.0, 1.0, 0.5]),
        ("linear", 0, {}, [1.0, 0.75, 0.5, 0.25]),
        ("linear", 0, {"final": 0.2}, [1.0, 0.8, 0.6, 0.4]),
        ("linear", 0, {"final": 1.0}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_worked_rates(schedule: str, warm_up: int, args: dict[str, float], expected: list[float]) -> None:
    assert rates(_config(schedule, 4, warm_up, 1.0, **args)) == pytest.approx(expected, rel=1e-5)


def test_a_schedule_that_depends_on_the_number_of_rounds_says_so() -> None:
    """The others give a longer run the same first rates."""
    for name in SCHEDULES:
        first, longer = (rates(_config(name, rounds, 2, 0.1)) for rounds in (20, 30))
        assert (first != longer[:20]) is depends_on_rounds(name), name


def test_rates_by_which_nothing_moves_are_refused() -> None:
    check_rates(_config("step", 12, 0, 0.1, every=1, gamma=0.1))
    with pytest.raises(ConfigError, match="'step', by which the learning rate falls to 1e-21; it must"):
        check_rates(_config("step", 3, 0, 0.1, every=1, gamma=1e-10))


def test_the_rates_of_a_run_without_end_are_not_listed() -> None:
    endless = RunConfig(num_server_rounds=10**9, learning_rate=0.2)
    check_rates(endless)
    assert rate_of(endless, 10**9) == 0.2
    with pytest.raises(ConfigError, match="with 'lr-schedule' 'cosine' it must be at most 1,000,000"):
        check_rates(RunConfig(num_server_rounds=10**9, lr_schedule="cosine"))
