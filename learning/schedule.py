"""The learning rate of each round: a schedule over the run's rounds, after a climb if `lr-warm-up` asks for one.

A round's rate holds for all steps of all its visits. The numbers are those of PyTorch's schedulers stepped once a
round, bit for bit: they multiply the rate of the round before, so that rounding adds up, and the same happens here.
Nothing of PyTorch is imported: the server reports rates before it trains anything.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from config.named import build_named
from config.parameters import check_parameters, parameter
from config.rules import at_least, interval
from config.run_config import ConfigError, RunConfig

FINAL = interval(0, 1)
MOST_ROUNDS = 1_000_000  # whose rates are computed in a second
LEAST_RATE = 1e-15  # a smaller one moves no float32 weight


@dataclass(frozen=True)
class Schedule:
    """A rate for each of the rounds that follow the climb; the defaults are those of a constant one.

    Attributes:
        depends_on_rounds: Whether a run of another number of rounds has other rates from the start.
    """

    depends_on_rounds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_parameters(self)

    def first(self, base: float) -> float:
        """The first rate after a climb, where PyTorch takes it from a closed form and not from the rate before."""
        return base

    def next(self, rate: float, base: float, number: int, rounds: int) -> float:
        """The rate after `number` rounds.

        Args:
            rate: Of the round before.
            base: Of the first round.
            number: From 1 to ``rounds - 1``.
            rounds: Over which the schedule runs.
        """
        return rate


@dataclass(frozen=True)
class Cosine(Schedule):
    """``final + (1 - final) (1 + cos(pi t / T)) / 2`` of the base rate (Loshchilov and Hutter, ICLR 2017).

    As `torch.optim.lr_scheduler.CosineAnnealingLR` with T rounds: the last round is one step above ``final``.

    Attributes:
        final: The share of the base rate towards which it falls.
    """

    depends_on_rounds: ClassVar[bool] = True

    final: float = parameter(0.0, FINAL)

    def first(self, base: float) -> float:
        least = self.final * base
        return least + (base - least)

    def next(self, rate: float, base: float, number: int, rounds: int) -> float:
        least = self.final * base
        turn = (1 + math.cos(math.pi * number / rounds)) / (1 + math.cos(math.pi * (number - 1) / rounds))
        return turn * (rate - least) + least


@dataclass(frozen=True)
class Step(Schedule):
    """Times `gamma` after every `every` rounds, as `torch.optim.lr_scheduler.StepLR`."""

    every: int = parameter(10, at_least(1))
    gamma: float = parameter(0.1, interval(0, 1, open_low=True))

    def next(self, rate: float, base: float, number: int, rounds: int) -> float:
        return rate if number % self.every else rate * self.gamma


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from the base rate to ``final`` of it, as `torch.optim.lr_scheduler.LinearLR` over T rounds."""

    depends_on_rounds: ClassVar[bool] = True

    final: float = parameter(0.0, FINAL)

    def next(self, rate: float, base: float, number: int, rounds: int) -> float:
        return _along_a_line(rate, 1.0, self.final, number, rounds)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Schedule,
    "cosine": Cosine,
    "step": Step,
    "linear": Linear,
}


def rates(config: RunConfig) -> list[float]:
    """The learning rate of each of the run's rounds, the first one's first.

    In W rounds of warm-up, round r has r / (W + 1) of the full rate, and the first round of the schedule all of it.

    Raises:
        ConfigError: The schedule refuses its parameters.
    """
    return list(_rates(config))


@lru_cache(maxsize=4)
def _rates(config: RunConfig) -> tuple[float, ...]:
    schedule: Schedule = build_named("lr-schedule", SCHEDULES, config.lr_schedule, config.lr_schedule_args)
    base, warm_up = config.learning_rate, config.lr_warm_up
    found: list[float] = []
    for number in range(min(warm_up, config.num_server_rounds)):
        start = 1 / (warm_up + 1)
        found.append(_along_a_line(found[-1], start, 1.0, number, warm_up) if number else base * start)
    rounds = config.num_server_rounds - warm_up
    for number in range(max(0, rounds)):
        begun = schedule.first(base) if found else base
        found.append(schedule.next(found[-1], base, number, rounds) if number else begun)
    return tuple(found)


def rate_of(config: RunConfig, server_round: int) -> float:
    """The learning rate of a round, from 1; of round 0, before the first, that of the first."""
    return _rates(config)[max(0, server_round - 1)] if changes(config) else config.learning_rate


def changes(config: RunConfig) -> bool:
    """Whether rounds have different rates."""
    return config.lr_schedule != "constant" or config.lr_warm_up > 0


def check_rates(config: RunConfig) -> None:
    """Check that every round of a run has a rate by which it can learn, and that there are not too many to list.

    Raises:
        ConfigError: There are, or one has not.
    """
    if not changes(config):
        return
    if config.num_server_rounds > MOST_ROUNDS:
        raise ConfigError(
            f"run config: 'num-server-rounds' is {config.num_server_rounds:,}, but with 'lr-schedule'"
            f" {config.lr_schedule!r} it must be at most {MOST_ROUNDS:,}."
        )
    if (least := min(rates(config))) < LEAST_RATE:
        raise ConfigError(
            f"run config: 'lr-schedule' is {config.lr_schedule!r}, by which the learning rate falls to {least:.3g}; it"
            f" must stay at least {LEAST_RATE:g}, by 'lr-schedule-args' or a larger 'learning-rate'."
        )


def depends_on_rounds(name: str) -> bool:
    """Whether a schedule's rates depend on how many rounds the run has."""
    return name in SCHEDULES and SCHEDULES[name].depends_on_rounds


def _along_a_line(rate: float, start: float, end: float, number: int, rounds: int) -> float:
    """The next rate on a line from a share of the base rate to another, given the one before."""
    return rate * (1.0 + (end - start) / (rounds * start + (number - 1) * (end - start)))
