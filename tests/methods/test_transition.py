from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.run_config import ConfigError
from methods.forward import Forward
from methods.transition import invert_transition, read_transition, transition_from_counts

T = np.array([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]])


def test_counts_with_one_added_to_each() -> None:
    matrix = transition_from_counts(np.array([[6, 1, 0], [0, 0, 0], [0, 2, 5]]), 1.0)
    expected = np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.3, 0.6]])
    np.testing.assert_allclose(matrix, expected)
    assert matrix.dtype == np.float64


def test_a_class_without_images_needs_smoothing() -> None:
    with pytest.raises(ValueError, match="no image of class 1 was counted; smoothing must be above 0"):
        transition_from_counts(np.array([[3, 1], [0, 0]]), 0)
    np.testing.assert_allclose(transition_from_counts(np.array([[3, 1], [0, 2]]), 0), [[0.75, 0.25], [0.0, 1.0]])


@given(
    st.integers(1, 6).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(0, 10**6), min_size=size, max_size=size), min_size=size, max_size=size
        )
    ),
    st.floats(1e-6, 100),
)
def test_rows_are_distributions(counts: list[list[int]], smoothing: float) -> None:
    matrix = transition_from_counts(np.array(counts), smoothing)
    assert (matrix > 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)


@pytest.mark.parametrize(
    "text",
    [
        "0.8 0.2 0\n.1 .7 .2\n0 0.3 0.7",
        "0.8, 0.2, 0.0\n0.1, 0.7, 0.2\n0.0, 0.3, 0.7\n",
        "\ufeff0.8,0.2,0\r\n\r\n1e-1\t7e-1\t2e-1\r\n0,0.3,0.7\r\n\r\n",
    ],
)
def test_a_file_of_numbers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode())
    np.testing.assert_allclose(read_transition(path, 3), T)


def test_rounded_rows_are_made_to_sum_to_one(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("0.333 0.333 0.333\n0 1 0\n0.667 0.333 0")
    matrix = read_transition(path, 3)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(matrix[0], 1 / 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 0\n0 1", "line 1 has 2 numbers; it must have 3, one for each class."),
        ("1 0 0\n0 1 0", " has 2 lines of numbers; it must have 3, one for each class."),
        ("1 0 0\n0 1 0\n0 0 1\n0 0 1", " has 4 lines of numbers; it must have 3, one for each class."),
        ("", " has 0 lines of numbers; it must have 3, one for each class."),
        ("1 0 0\n\n0 one 0\n0 0 1", "line 3 has 'one'; it must be a number from 0 to 1."),
        ("1 0 0\n0 1 0\n-0.1 0.1 1", "line 3 has '-0.1'; it must be a number from 0 to 1."),
        ("1 0 0\n0 nan 0\n0 0 1", "line 2 has 'nan'; it must be a number from 0 to 1."),
        ("inf 0 0\n0 1 0\n0 0 1", "line 1 has 'inf'; it must be a number from 0 to 1."),
        ("1 0 0\n0 0.998 0\n0 0 1", "line 2 sums to 0.998; it must sum to 1, give or take 0.001."),
        (b"\xff\xfe1", " is not text; it must be a text file of 3 lines of 3 numbers."),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_transition(path, 3)
    assert str(caught.value) in (f"{path}{sentence}", f"{path}, {sentence}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.txt is missing; it must be a text file of 3 lines of 3 numbers\."):
        read_transition(tmp_path / "t.txt", 3)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory; it must be a text file"):
        read_transition(tmp_path, 3)


def test_the_inverse() -> None:
    np.testing.assert_allclose(invert_transition(T) @ T, np.eye(3), atol=1e-12)
    for singular in (np.full((2, 2), 0.5), np.array([[0.5, 0.5], [0.5 + 1e-9, 0.5 - 1e-9]]), np.zeros((2, 2))):
        with pytest.raises(ConfigError, match="the transition matrix is singular, or nearly so"):
            invert_transition(singular)


def test_transition_parameters_are_checked() -> None:
    Forward("~/t.txt", 1.0)
    for bad in ("", "t.txt", "Estimate"):
        with pytest.raises(ValueError, match="transition must be estimate, clothing1m, or the absolute path"):
            Forward(bad, 1.0)
    with pytest.raises(ValueError, match="smoothing must be a number at least 0"):
        Forward("estimate", float("inf"))
