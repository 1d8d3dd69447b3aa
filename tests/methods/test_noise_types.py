"""Confused classes and types of noise, counted on images with both labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.noise.published import CONFUSION
from methods.noise_types import CONFUSING, NOISE_FREE, RANDOM, UNKNOWN, confusing_classes, log_table, types_of

COUNTS = np.array([[60, 30, 10], [5, 80, 15], [4, 36, 60]])  # rows clean, columns noisy
CM = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # rows noisy, columns clean


def _likelihood(shares: np.ndarray, kept: int) -> float:
    """As the paper writes it, of the `kept` largest shares of one class."""
    largest = np.sort(shares)[::-1]
    chosen, others = largest[:kept], largest[kept:]
    inside = sum(share * np.log(share / chosen.sum()) for share in chosen if share)
    return float(inside + sum(share * np.log(1 / (len(shares) - 1)) for share in others))


def test_worked_numbers() -> None:
    np.testing.assert_array_equal(confusing_classes(COUNTS), CM)
    shares = COUNTS * (1 - np.eye(3))
    shares = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, [[0, 0.75, 0.25], [0.25, 0, 0.75], [0.1, 0.9, 0]])
    best = [_likelihood(row, 1) for row in shares]
    assert best == pytest.approx([-0.173287, -0.173287, -0.069315], abs=1e-5)
    assert all(_likelihood(row, 2) < one for row, one in zip(shares, best, strict=True))


def test_columns_are_clean_classes() -> None:
    """Class 0 is called 2, and 2 is never called 0."""
    counts = np.array([[9, 0, 5], [0, 9, 0], [0, 7, 9]])
    np.testing.assert_array_equal(confusing_classes(counts), [[0, 0, 0], [0, 0, 1], [1, 0, 0]])


def test_two_classes_that_are_as_likely_are_both_kept() -> None:
    counts = np.zeros((8, 8), dtype=int)
    counts[0] = [50, 20, 0, 20, 1, 0, 0, 0]
    np.testing.assert_allclose(confusing_classes(counts)[:, 0], [0, 0.5, 0, 0.5, 0, 0, 0, 0])


@given(arrays(np.int64, (5, 5), elements=st.integers(0, 40)))
def test_the_kept_classes_are_the_likeliest_of_all_numbers_of_the_largest(counts: np.ndarray) -> None:
    found = confusing_classes(counts)
    for label, row in enumerate(counts * (1 - np.eye(5, dtype=int))):
        column = found[:, label]
        if not row.any():
            assert not column.any()
            continue
        shares, kept = row / row.sum(), int((column > 0).sum())
        assert column.sum() == pytest.approx(1)
        assert row[column > 0].min() >= row[column == 0].max(initial=0)
        np.testing.assert_allclose(column[column > 0], shares[column > 0] / shares[column > 0].sum())
        best = max(_likelihood(shares, number) for number in range(1, 5))
        assert _likelihood(shares, kept) == pytest.approx(best, abs=1e-12)


def test_the_published_counts_leave_few_classes_to_confuse() -> None:
    found = confusing_classes(CONFUSION)
    np.testing.assert_allclose(found.sum(axis=0), 1)
    assert not found.diagonal().any()
    kept = (found > 0).sum(axis=0)
    assert kept.min() >= 1
    assert kept.max() <= 9
    assert found[4, 2] == found[:, 2].max()  # Knitwear is called Sweater


def test_a_class_that_is_never_mislabelled_is_confused_with_none() -> None:
    found = confusing_classes(np.array([[9, 1, 0], [0, 5, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(found, [[0, 0, 0], [1, 0, 0], [0, 0, 0]])


def test_types_of_images() -> None:
    clean = np.array([0, 1, 2, 0, 0, 1, 1, 2, 2, 2])
    noisy = np.array([0, 1, 2, 1, 2, 0, 2, 0, 1, -1])
    expected = [0, 0, 0, CONFUSING, RANDOM, RANDOM, CONFUSING, RANDOM, CONFUSING, UNKNOWN]
    found = types_of(clean, noisy, CM)
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert NOISE_FREE == 0


def test_a_label_no_likelier_than_a_random_one_is_random() -> None:
    confusion = np.zeros((3, 3))
    confusion[:, 0] = [0, 0.5, 0.5]
    assert types_of(np.array([0, 0]), np.array([1, 2]), confusion).tolist() == [RANDOM, RANDOM]
    confusion[:, 0] = [0, 0.6, 0.4]
    assert types_of(np.array([0, 0]), np.array([1, 2]), confusion).tolist() == [CONFUSING, RANDOM]


def test_of_two_classes_every_wrong_label_is_random() -> None:
    confusion = confusing_classes(np.array([[7, 3], [1, 9]]))
    np.testing.assert_array_equal(confusion, [[0, 1], [1, 0]])
    assert types_of(np.array([0, 0, 1]), np.array([0, 1, 0]), confusion).tolist() == [NOISE_FREE, RANDOM, RANDOM]
    table = np.exp(log_table(confusion))
    np.testing.assert_array_equal(table[:, :, 1], table[:, :, 2])


def test_one_class_has_nothing_but_right_labels() -> None:
    confusion = confusing_classes(np.array([[7]]))
    assert types_of(np.array([0]), np.array([0]), confusion).tolist() == [NOISE_FREE]
    assert np.exp(log_table(confusion)).tolist() == [[[1, 0, 0]]]


def test_each_type_is_a_distribution_over_given_labels() -> None:
    table = np.exp(log_table(CM))
    assert table.shape == (3, 3, 3)
    np.testing.assert_allclose(table.sum(axis=0), 1)
    np.testing.assert_allclose(table[:, :, 0], np.eye(3))
    np.testing.assert_allclose(table[:, :, 1], (1 - np.eye(3)) / 2)
    np.testing.assert_allclose(table[:, :, 2], CM)
