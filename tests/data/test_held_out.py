"""Which images a client holds out: complete, disjoint, of the right number, the same everywhere."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.partition.held_out import LEAST, held_out, held_out_count

KEYS = np.array([f"images/{number}.jpg".encode() for number in range(1_000)])


@pytest.mark.parametrize(
    ("images", "fraction", "count"),
    [(100, 0.1, 10), (100, 0.0, 0), (1, 0.0, 0), (3, 0.01, 1), (2, 0.5, 1), (3, 0.5, 2), (14, 0.1, 1), (16, 0.1, 2)],
)
def test_how_many_by_hand(images: int, fraction: float, count: int) -> None:
    assert held_out_count(images, fraction) == count


@given(st.integers(LEAST, 1_000), st.floats(0, 0.5, exclude_min=True), st.integers(0, 2**40))
@settings(deadline=None)
def test_some_are_held_out_and_some_are_left(images: int, fraction: float, seed: int) -> None:
    out = held_out(KEYS[:images], fraction, seed)
    assert out.dtype == bool
    assert out.shape == (images,)
    assert 1 <= out.sum() == held_out_count(images, fraction) <= images - 1
    assert abs(out.sum() - fraction * images) <= 1
    assert np.array_equal(out, held_out(KEYS[:images], fraction, seed))


def test_nothing_is_held_out_unless_it_is_asked_for() -> None:
    assert not held_out(KEYS, 0.0, 1).any()
    assert not held_out(KEYS[:1], 0.0, 1).any()


def test_seeds_draw_by_themselves() -> None:
    assert 0.4 < (held_out(KEYS, 0.5, 1) == held_out(KEYS, 0.5, 2)).mean() < 0.6


@given(st.permutations(range(30)), st.integers(LEAST, 30), st.floats(0, 0.5, exclude_min=True), st.integers(0, 99))
def test_neither_order_nor_a_photo_that_moves_draws_anew(
    order: list[int], images: int, fraction: float, seed: int
) -> None:
    def drawn(keys: np.ndarray) -> set[bytes]:
        return set(keys[held_out(keys, fraction, seed)].tolist())

    before = drawn(KEYS[np.sort(order[:images])])
    assert drawn(KEYS[order[:images]]) == before
    renamed = KEYS[order[:images]].copy()
    renamed[0] = b"images/elsewhere.jpg"
    assert len(before - drawn(renamed)) <= 1
    one_more = np.append(KEYS[order[:images]], b"images/new.jpg")
    assert len(before - drawn(one_more)) <= 1
    assert len(drawn(one_more) - before) <= 1


def test_the_draw_stays_as_it_is() -> None:
    """A resumed run must not train on what it held out."""
    keys = KEYS[:20].tolist()
    smallest = sorted(range(20), key=lambda row: hashlib.sha256(b"7/held out/" + keys[row]).digest())[:4]
    assert np.flatnonzero(held_out(KEYS[:20], 0.2, 7)).tolist() == sorted(smallest)


def test_each_image_is_as_likely_as_the_others() -> None:
    counts = np.sum([held_out(KEYS[:20], 0.25, seed) for seed in range(2_000)], axis=0)
    assert counts.sum() == 5 * 2_000
    assert np.abs(counts - 500).max() < 90  # more than four standard deviations of a binomial of 2,000 and 1/4


def test_other_processes_and_wider_arrays_draw_the_same() -> None:
    """Keys are as wide as the longest of the whole release, which another machine may have more of."""
    wide = KEYS[:50].astype("S99")
    script = (
        "import numpy as np; from data.partition.held_out import held_out;"
        "keys = np.array([f'images/{number}.jpg'.encode() for number in range(50)]);"
        "print(np.flatnonzero(held_out(keys, 0.2, 3)).tolist())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == str(np.flatnonzero(held_out(wide, 0.2, 3)).tolist()), done.stderr
