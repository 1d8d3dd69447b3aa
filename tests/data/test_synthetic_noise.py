"""Synthetic label noise: exact counts, published levels, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.noise.published import CONFUSION
from data.noise.synthetic import corrupt, level


def _labels(count: int, classes: int = 14) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, count, dtype=np.int32)


@given(
    scheme=st.sampled_from(["symmetric", "pairflip"]),
    count=st.integers(0, 300),
    classes=st.integers(2, 20),
    rate=st.floats(0, 0.999),
    seed=st.integers(0, 2**40),
)
def test_exactly_the_floor_of_n_times_rate_labels_change(
    scheme: str, count: int, classes: int, rate: float, seed: int
) -> None:
    labels = _labels(count, classes)
    before = labels.copy()
    noisy = corrupt(labels, scheme, classes, 0, 1, seed, rate=rate)
    assert (noisy != labels).sum() == int(count * rate + 1e-9)
    assert noisy.dtype == np.int32
    assert ((noisy >= 0) & (noisy < classes)).all()
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(noisy, corrupt(labels, scheme, classes, 0, 1, seed, rate=rate))


def test_levels_as_published() -> None:
    """FNBench, 0 to 0.4 over 100 clients: 0, 0.004, ..., 0.396; of 500 images 2 and 198 change."""
    rates = [level("symmetric", client, 100, 1, min_rate=0.0, max_rate=0.4) for client in range(100)]
    assert rates[:2] == pytest.approx([0.0, 0.004])
    assert rates[-1] == pytest.approx(0.396)
    assert np.mean(rates) == pytest.approx(0.198)
    labels = _labels(500)
    for client, expected in ((1, 2), (99, 198)):
        noisy = corrupt(labels, "symmetric", 14, client, 100, 1, min_rate=0.0, max_rate=0.4)
        assert (noisy != labels).sum() == expected
    assert (corrupt(_labels(100), "symmetric", 14, 0, 1, 1, rate=0.29) != _labels(100)).sum() == 29


@given(
    share=st.floats(0, 1),
    clients=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    rates=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)).map(sorted),
)
def test_exactly_the_rounded_share_of_clients_is_noisy(
    share: float, clients: int, seed: int, rates: list[float]
) -> None:
    args = {"noisy_share": share, "min_rate": rates[0], "max_rate": rates[1]}
    levels = [level("symmetric", client, clients, seed, **args) for client in range(clients)]
    noisy = [one for one in levels if one]
    assert len(noisy) == round(share * clients)
    assert all(rates[0] <= one <= rates[1] for one in noisy)


def test_who_is_noisy_and_how_much_follows_from_the_seed() -> None:
    args = {"noisy_share": 0.4, "min_rate": 0.5, "max_rate": 0.8}

    def levels(seed: int, scheme: str = "symmetric") -> list[float]:
        return [level(scheme, client, 20, seed, **args) for client in range(20)]

    assert levels(1) == levels(1, "pairflip")
    drawn = [levels(seed) for seed in range(500)]
    assert len({tuple(one) for one in drawn}) == 500
    np.testing.assert_allclose(np.mean(np.array(drawn) > 0, axis=0), 0.4, atol=0.1)  # no place is preferred
    noisy = np.array([one for levels_ in drawn for one in levels_ if one])
    assert len(set(noisy.tolist())) == len(noisy) == 4000
    np.testing.assert_allclose(np.quantile(noisy, [0, 0.25, 0.5, 0.75, 1]), [0.5, 0.575, 0.65, 0.725, 0.8], atol=0.01)


def test_noisy_clients_change_their_exact_count_and_clean_ones_nothing() -> None:
    args = {"noisy_share": 0.4, "min_rate": 0.5, "max_rate": 0.8}
    labels = _labels(300)
    changed = [(corrupt(labels, "pairflip", 14, client, 10, 3, **args) != labels).sum() for client in range(10)]
    assert changed == [int(300 * level("pairflip", client, 10, 3, **args) + 1e-9) for client in range(10)]
    assert sum(count > 0 for count in changed) == 4


def test_symmetric_is_uniform_over_the_others_and_pairflip_goes_one_down() -> None:
    zeros = np.zeros(60_000, dtype=np.int32)
    counts = np.bincount(corrupt(zeros, "symmetric", 5, 0, 1, 1, rate=0.5), minlength=5)
    assert counts[0] == 30_000
    np.testing.assert_allclose(counts[1:], 7_500, rtol=0.05)
    labels = _labels(1000)
    noisy = corrupt(labels, "pairflip", 14, 0, 1, 1, rate=0.5)
    flipped = noisy != labels
    np.testing.assert_array_equal(noisy[flipped], (labels[flipped] - 1) % 14)


def test_confusion_has_the_published_rows() -> None:
    labels = _labels(700_000)
    noisy = corrupt(labels, "confusion", 14, 0, 1, 1)
    table = np.zeros((14, 14))
    np.add.at(table, (labels, noisy), 1)
    expected = CONFUSION / CONFUSION.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(table / table.sum(axis=1, keepdims=True), expected, atol=0.01)


def test_clients_and_seeds_draw_apart() -> None:
    labels = _labels(200)
    drawn = [
        corrupt(labels, "symmetric", 14, client, 2, seed, rate=0.4).tobytes() for client in (0, 1) for seed in (1, 2)
    ]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("scheme", "args", "sentence"),
    [
        ("random", {}, "no label noise 'random'; it must be one of none, symmetric, pairflip, confusion"),
        ("none", {"rate": 0.1}, "none takes no arguments, but 'rate' is given"),
        ("confusion", {"min_rate": 0.1}, "confusion takes no arguments, but 'min-rate' is given"),
        ("symmetric", {}, "needs 'rate', or 'min-rate' and"),
        ("symmetric", {"rate": 0.1, "min_rate": 0.1}, "needs 'rate', or 'min-rate' and"),
        ("symmetric", {"min_rate": 0.4, "max_rate": 0.1}, "not below it"),
        ("symmetric", {"rate": 1.0}, "'rate' of symmetric is 1.0; it must be a number of at least 0, below 1"),
        ("pairflip", {"rate": "x"}, "'rate' of pairflip is 'x'"),
        ("pairflip", {"level": 0.1}, "no argument 'level'; it must be one of: rate, min-rate, max-rate, noisy-share"),
        ("symmetric", {"noisy_share": 0.4, "rate": 0.1}, "needs 'rate', or 'min-rate' and"),
        ("symmetric", {"noisy_share": 0.4}, "needs 'rate', or 'min-rate' and"),
        (
            "pairflip",
            {"noisy_share": 1.1, "min_rate": 0.1, "max_rate": 0.2},
            "'noisy-share' of pairflip is 1.1; it must be a number from 0 to 1",
        ),
        ("pairflip", {"noisy_share": True, "min_rate": 0.1, "max_rate": 0.2}, "'noisy-share' of pairflip is True"),
    ],
)
def test_refusals(scheme: str, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        corrupt(_labels(10), scheme, 14, 0, 1, 1, **args)


def test_the_published_matrix_needs_its_classes() -> None:
    with pytest.raises(DataError, match="needs its 14 classes; there are 10 here"):
        corrupt(_labels(10, 10), "confusion", 10, 0, 1, 1)
