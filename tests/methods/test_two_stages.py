"""How long stage 1 takes, who counts as noisy, and which parameters are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.named import build_named
from config.run_config import ConfigError
from methods import METHODS
from methods.two_stages import TwoStages, learns_as_noisy


@pytest.mark.parametrize(
    ("num_rounds", "values", "rounds"),
    [
        (120, {}, 20),
        (40, {}, 7),
        (14, {}, 2),
        (15, {}, 3),  # 2.5
        (3, {}, 1),
        (2, {}, 1),
        (1, {}, 1),  # no stage 2
        (10, {"warm_up": 0.99}, 9),
        (10, {"warm_up_rounds": 9}, 9),
        (1, {"warm_up_rounds": 1}, 1),
    ],
)
def test_the_first_stage_is_a_share_of_the_rounds_or_a_number(
    num_rounds: int, values: dict[str, Any], rounds: int
) -> None:
    assert TwoStages(**values).first_stage(num_rounds) == rounds


@given(st.floats(1e-6, 0.999), st.integers(2, 10_000))
def test_there_are_always_both_stages(warm_up: float, num_rounds: int) -> None:
    assert 1 <= TwoStages(warm_up=warm_up).first_stage(num_rounds) < num_rounds


def test_a_first_stage_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="warm-up-rounds to 14, but 'num-server-rounds' is 14; it must be below"):
        TwoStages(warm_up_rounds=14).first_stage(14)


@pytest.mark.parametrize(
    ("told", "noisy"),
    [
        ({}, False),
        ({"stage": 1}, False),
        ({"stage": 1, "noisy": True}, False),
        ({"stage": 2, "noisy": False, "stage-2-began": 3}, False),
        ({"stage": 2, "noisy": True, "stage-2-began": 3}, True),
    ],
)
def test_a_client_learns_as_noisy_if_it_is_told_so_in_stage_2(told: dict[str, Any], noisy: bool) -> None:
    assert learns_as_noisy(told) is noisy


@pytest.mark.parametrize("method", [name for name, cls in METHODS.items() if issubclass(cls, TwoStages)])
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("warm-up=0", "warm-up must be a number above 0 and below 1"),
        ("warm-up=1.0", "warm-up must be a number above 0 and below 1"),
        ("warm-up-rounds=0", "warm-up-rounds must be a whole number from 1 to 1,000,000,000, or -1"),
        ("warm-up-rounds=2.5", "warm-up-rounds must be a whole number from 1 to 1,000,000,000, or -1"),
        ("clients='noisy'", "clients must be one of detect, all-noisy, all-clean"),
        ("least-gap=-0.1", "least-gap must be a number at least 0"),
        ("adjustment=nan", "adjustment must be a number at least 0"),
    ],
)
def test_bad_parameters_are_refused(method: str, args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        build_named("method", METHODS, method, args)
    assert "\n" not in str(caught.value)


def test_all_parameters_can_be_set() -> None:
    args = "warm-up=0.3 warm-up-rounds=3 clients='all-noisy' least-gap=0"
    for name in (name for name, cls in METHODS.items() if issubclass(cls, TwoStages)):
        method = build_named("method", METHODS, name, args)
        assert (method.warm_up, method.first_stage(14), method.clients, method.least_gap) == (0.3, 3, "all-noisy", 0)
