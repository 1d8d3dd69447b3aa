"""Means, deviations and intervals: against SciPy, numbers worked out by hand, and in any order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_rel

from runs.statistics import Stat, half_width, spread, stat_of

PERCENT = st.floats(0, 100).map(lambda value: round(value, 4))
BY_SEED = st.dictionaries(st.integers(0, 50), PERCENT, min_size=1, max_size=12)


def test_by_hand() -> None:
    """Differences 2, 4 and 3: mean 3, deviation 1; t of 2 degrees of freedom at 0.975 is 4.30265."""
    stat = stat_of({1: 62.0, 2: 65.0, 3: 64.0}, {1: 60.0, 2: 61.0, 3: 61.0})
    assert stat.mean == pytest.approx(191 / 3)
    assert stat.sd == pytest.approx(math.sqrt(((5 / 3) ** 2 + (4 / 3) ** 2 + (1 / 3) ** 2) / 2))
    assert (stat.difference, stat.seeds, stat.pairs) == pytest.approx((3, 3, 3))
    assert stat.interval == pytest.approx(4.30265 / math.sqrt(3), abs=1e-5)


def test_one_seed_has_no_spread_and_one_pair_no_interval() -> None:
    assert stat_of({1: 50.0}) == Stat(50.0, None, 1, by_seed={1: 50.0})
    stat = stat_of({1: 50.0, 2: 60.0}, {2: 57.0, 3: 1.0})
    assert (stat.difference, stat.interval, stat.pairs, stat.seeds) == (3.0, None, 1, 2)


def test_nothing_in_common_is_no_difference() -> None:
    stat = stat_of({1: 50.0}, {2: 57.0})
    assert (stat.difference, stat.interval, stat.pairs) == (None, None, 0)


@given(own=BY_SEED, base=BY_SEED)
def test_intervals_are_those_of_scipy(own: dict[int, float], base: dict[int, float]) -> None:
    stat = stat_of(own, base)
    common = sorted(own.keys() & base.keys())
    assert stat.pairs == len(common)
    first, second = [own[seed] for seed in common], [base[seed] for seed in common]
    if len({a - b for a, b in zip(first, second, strict=True)}) < 2:  # SciPy divides by a deviation of 0
        return
    low, high = ttest_rel(first, second).confidence_interval(0.95)
    assert stat.difference is not None
    assert stat.interval is not None
    assert stat.difference - stat.interval == pytest.approx(low, rel=1e-6, abs=1e-6)
    assert stat.difference + stat.interval == pytest.approx(high, rel=1e-6, abs=1e-6)


@given(own=BY_SEED, base=BY_SEED, order=st.randoms())
def test_the_order_of_seeds_changes_no_bit(own: dict[int, float], base: dict[int, float], order: object) -> None:
    mixed = [dict(order.sample(sorted(one.items()), len(one))) for one in (own, base)]  # type: ignore[attr-defined]
    assert stat_of(*mixed) == stat_of(own, base)


@given(st.lists(PERCENT, min_size=2, max_size=10, unique=True))
def test_a_half_width_is_that_of_one_sample(values: list[float]) -> None:
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert half_width(values) == pytest.approx((high - low) / 2, rel=1e-6)


def test_equal_differences_have_an_interval_of_nothing() -> None:
    assert half_width([2.0, 2.0, 2.0]) == 0.0
    assert spread([2.0, 2.0]) == 0.0
    assert spread([2.0]) is None
