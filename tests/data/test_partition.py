from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.partition import schemes as partition_module
from data.partition.schemes import PARTITIONS, partition

ALPHA = st.floats(1e-6, 1e6) | st.sampled_from([1e-6, 0.01, 0.1, 0.5, 1.0, 1e6])

PINNED = {
    "shards": [[0, 3, 5, 11], [2, 6, 8, 9], [1, 4, 7, 10]],
    "bernoulli-dirichlet": [[0, 3, 4, 5, 7, 9, 11], [1, 2, 8, 10], [6]],
    "quantity": [[6, 9], [0], [1, 2, 3, 4, 5, 7, 8, 10, 11]],
}


def labels_of(size: int, classes: int = 14, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size, dtype=np.int32)


def check_cover(parts: list[np.ndarray], size: int) -> None:
    assert all(part.dtype == np.int64 for part in parts)
    assert all(first < second for part in parts for first, second in pairwise(part.tolist()))
    assert sorted(np.concatenate(parts).tolist()) == list(range(size))


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    size = draw(st.integers(1, 200))
    labels = labels_of(size, draw(st.integers(1, 20)), draw(st.integers(0, 99)))
    return labels, draw(st.integers(1, size)), draw(st.integers(0, 2**40))


@settings(deadline=None)
@given(problem=problems())
def test_iid_is_disjoint_complete_even_and_repeatable(problem: tuple[np.ndarray, int, int]) -> None:
    labels, count, seed = problem
    parts = partition("iid", labels, count, seed)
    check_cover(parts, len(labels))
    sizes = [len(part) for part in parts]
    assert len(parts) == count
    assert max(sizes) - min(sizes) <= 1
    for part, again in zip(parts, partition("iid", labels, count, seed), strict=True):
        assert np.array_equal(part, again)


@settings(deadline=None)
@given(problem=problems(), alpha=ALPHA, data=st.data())
def test_dirichlet_is_disjoint_complete_and_repeatable(
    problem: tuple[np.ndarray, int, int], alpha: float, data: st.DataObject
) -> None:
    labels, count, seed = problem
    min_size = data.draw(st.integers(1, len(labels) // count))
    parts = partition("dirichlet", labels, count, seed, alpha=alpha, min_size=min_size)
    check_cover(parts, len(labels))
    assert len(parts) == count
    assert min(len(part) for part in parts) >= min_size
    for part, again in zip(
        parts, partition("dirichlet", labels, count, seed, alpha=alpha, min_size=min_size), strict=True
    ):
        assert np.array_equal(part, again)


@settings(deadline=None)
@given(
    problem=problems(),
    scheme=st.sampled_from(["shards", "bernoulli-dirichlet", "quantity"]),
    alpha=ALPHA,
    p=st.floats(0.05, 1.0),
    data=st.data(),
)
def test_the_other_schemes_are_disjoint_complete_and_repeatable(
    problem: tuple[np.ndarray, int, int], scheme: str, alpha: float, p: float, data: st.DataObject
) -> None:
    labels, count, seed = problem
    least = data.draw(st.integers(1, len(labels) // count))
    schemes: dict[str, dict[str, Any]] = {
        "shards": {"shards_per_client": least},
        "bernoulli-dirichlet": {"p": p, "alpha": alpha, "min_size": least},
        "quantity": {"alpha": alpha, "min_size": least},
    }
    args = schemes[scheme]
    parts = partition(scheme, labels, count, seed, **args)
    check_cover(parts, len(labels))
    assert len(parts) == count
    assert min(len(part) for part in parts) >= least
    for part, again in zip(parts, partition(scheme, labels, count, seed, **args), strict=True):
        assert np.array_equal(part, again)


def test_shards_hold_few_classes_and_even_numbers() -> None:
    """100 clients of 2 shards of a balanced set of 10 classes: at most 4 classes each, 100 images each."""
    labels = np.arange(10_000) % 10
    parts = partition("shards", labels, 100, 1, shards_per_client=2)
    assert {len(part) for part in parts} == {100}
    assert max(len(np.unique(labels[part])) for part in parts) <= 4
    many = partition("shards", labels, 100, 1, shards_per_client=100)
    assert np.mean([len(np.unique(labels[part])) for part in many]) > 9


def test_bernoulli_dirichlet_leaves_out_classes_with_probability_one_minus_p() -> None:
    """With FedCorr's p = 0.7 and alpha = 10 a holder nearly surely has some of 14,000 images of a class."""
    labels = labels_of(14 * 14_000)
    parts = partition("bernoulli-dirichlet", labels, 60, 4, p=0.7, alpha=10)
    held = np.array([np.bincount(labels[part], minlength=14) > 0 for part in parts])
    assert held.mean() == pytest.approx(0.7, abs=0.06)
    everyone = partition("bernoulli-dirichlet", labels, 60, 4, p=1.0, alpha=10)
    assert all((np.bincount(labels[part], minlength=14) > 0).all() for part in everyone)


def test_a_class_that_nobody_drew_goes_to_somebody() -> None:
    labels = labels_of(200, classes=20)
    parts = partition("bernoulli-dirichlet", labels, 2, 0, p=0.05)
    check_cover(parts, 200)


def test_quantity_skews_sizes_and_not_labels() -> None:
    labels = labels_of(140_000)
    parts = partition("quantity", labels, 10, 2, alpha=0.5)
    sizes = np.array([len(part) for part in parts])
    assert sizes.max() > 5 * sizes.min()
    largest = labels[parts[int(sizes.argmax())]]
    np.testing.assert_allclose(np.bincount(largest) / len(largest), 1 / 14, atol=0.01)
    even = np.array([len(part) for part in partition("quantity", labels, 10, 2, alpha=1e6)])
    assert even.max() - even.min() < 200


@pytest.mark.parametrize(
    ("scheme", "args"),
    [("iid", {}), ("dirichlet", {"alpha": 0.5}), ("shards", {}), ("bernoulli-dirichlet", {}), ("quantity", {})],
)
def test_the_seed_matters_and_global_state_does_not(scheme: str, args: dict[str, float]) -> None:
    labels = labels_of(500)
    np.random.seed(1)  # noqa: NPY002
    one = partition(scheme, labels, 7, 1, **args)
    np.random.seed(2)  # noqa: NPY002
    again = partition(scheme, labels, 7, 1, **args)
    other = partition(scheme, labels, 7, 2, **args)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_pinned_parts() -> None:
    """Runs on different machines and of different versions must hold the same images."""
    labels = np.arange(12) % 3
    even = partition("iid", labels, 3, 1)
    skewed = partition("dirichlet", labels, 3, 1, alpha=0.5)
    assert [part.tolist() for part in even] == [[0, 3, 9, 10], [4, 5, 6, 11], [1, 2, 7, 8]]
    assert [part.tolist() for part in skewed] == [[5], [4, 6, 7, 9, 10], [0, 1, 2, 3, 8, 11]]
    others = {
        scheme: [part.tolist() for part in partition(scheme, labels, 3, 1, **args)]
        for scheme, args in {
            "shards": {"shards_per_client": 2},
            "bernoulli-dirichlet": {},
            "quantity": {},
        }.items()
    }
    assert others == PINNED


def test_dirichlet_by_hand() -> None:
    """Ten images of one class and q = (.25, .35, .40): cuts at 2 and 6, so 2, 4 and 4 images."""
    shares = iter([np.array([0.25, 0.35, 0.40]), np.array([1.0])])
    drawn: list[list[float]] = []

    class Rng:
        def permutation(self, values: np.ndarray) -> np.ndarray:
            return values

        def dirichlet(self, alpha: np.ndarray) -> np.ndarray:
            drawn.append(alpha.tolist())
            return next(shares)

    parts = PARTITIONS["dirichlet"](np.array([0] * 10 + [1]), 3, Rng(), alpha=2)
    # N/K = 11/3: clients 1 and 2 are full after the first class, so the second is for client 0 alone.
    assert drawn == [[2, 2, 2], [2]]
    assert [part.tolist() for part in parts] == [[0, 1, 10], [2, 3, 4, 5], [6, 7, 8, 9]]


def test_alpha_sets_the_skew() -> None:
    labels = labels_of(14_000)

    def largest_class_share(alpha: float) -> float:
        parts = partition("dirichlet", labels, 10, 3, alpha=alpha)
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    assert largest_class_share(0.05) > 0.5
    assert 0.14 < largest_class_share(0.5) < 0.6
    assert largest_class_share(1e5) < 0.09  # 1/14 is even


def test_large_alpha_is_even() -> None:
    sizes = [len(part) for part in partition("dirichlet", labels_of(14_000), 10, 3, alpha=1e6)]
    assert max(sizes) - min(sizes) < 60


def test_filling_up_takes_from_the_largest() -> None:
    """All images go to one client at first; the others are filled from it, and it stays the largest."""
    parts = partition("dirichlet", np.zeros(100, np.int32), 4, 5, alpha=1e-6, min_size=10)
    check_cover(parts, 100)
    assert sorted(len(part) for part in parts) == [10, 10, 10, 70]


def test_filling_up_spares_the_smaller_ones() -> None:
    parts = [np.arange(5), np.arange(5, 6), np.arange(6, 26), np.empty(0, np.int64)]
    filled = partition_module._fill_up(parts, 3, np.random.default_rng(0))
    assert [len(part) for part in filled] == [5, 3, 15, 3]
    check_cover([np.sort(part) for part in filled], 26)


def test_arguments_with_hyphens() -> None:
    labels = labels_of(100)
    hyphens = partition("dirichlet", labels, 5, 1, **{"alpha": 0.1, "min-size": 12})
    assert all(
        np.array_equal(a, b)
        for a, b in zip(hyphens, partition("dirichlet", labels, 5, 1, alpha=0.1, min_size=12), strict=True)
    )


@pytest.mark.parametrize(
    ("scheme", "count", "args", "expected"),
    [
        ("random", 2, {}, ("'random'", "iid, dirichlet")),
        ("iid", 11, {}, ("11 partitions", "10 images")),
        ("iid", 0, {}, ("0 partitions", "at least 1")),
        ("iid", 2, {"alpha": 1.0}, ("'iid'", "'alpha'", "none")),
        ("dirichlet", 11, {"alpha": 1.0}, ("11 partitions", "10 images")),
        ("dirichlet", 2, {}, ("needs", "'alpha'")),
        ("dirichlet", 2, {"alpha": 1.0, "beta-size": 2}, ("'beta-size'", "alpha, min-size")),
        ("dirichlet", 2, {"alpha": 1.0, "rng": 2}, ("'rng'", "alpha, min-size")),
        ("dirichlet", 2, {"alpha": 0}, ("'alpha'", "above 0")),
        ("dirichlet", 2, {"alpha": -0.5}, ("'alpha'", "-0.5", "above 0")),
        ("dirichlet", 2, {"alpha": float("nan")}, ("'alpha'", "above 0")),
        ("dirichlet", 2, {"alpha": float("inf")}, ("'alpha'", "above 0")),
        ("dirichlet", 2, {"alpha": "1"}, ("'alpha'", "'1'", "above 0")),
        ("dirichlet", 2, {"alpha": True}, ("'alpha'", "above 0")),
        ("dirichlet", 2, {"alpha": 1.0, "min_size": 0}, ("'min-size'", "at least 1")),
        ("dirichlet", 2, {"alpha": 1.0, "min_size": 1.5}, ("'min-size'", "whole number")),
        ("shards", 2, {"shards-per-client": 0}, ("'shards-per-client'", "at least 1")),
        ("shards", 2, {"shards-per-client": 6}, ("'shards-per-client'", "at most 5")),
        ("bernoulli-dirichlet", 2, {"p": 0}, ("'p'", "from 0.001 to 1")),
        ("bernoulli-dirichlet", 2, {"p": 1.5}, ("'p'", "1.5")),
        ("bernoulli-dirichlet", 2, {"alpha": 0}, ("'alpha' of bernoulli-dirichlet", "above 0")),
        ("quantity", 2, {"alpha": -1}, ("'alpha' of quantity", "above 0")),
        ("quantity", 3, {"min-size": 4}, ("'min-size' of quantity", "at most 3")),
        ("dirichlet", 3, {"alpha": 1.0, "min_size": 4}, ("'min-size'", "3 partitions", "10 images", "at most 3")),
    ],
)
def test_refusals(scheme: str, count: int, args: dict[str, object], expected: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        partition(scheme, labels_of(10), count, 1, **args)
    for words in expected:
        assert words in str(caught.value)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(DataError, match="seed"):
        partition("iid", labels_of(10), 2, -1)
