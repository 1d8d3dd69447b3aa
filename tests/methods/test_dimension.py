"""Local intrinsic dimension: by hand, against the definition, in blocks, and where points coincide."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from methods import dimension
from methods.dimension import LARGEST, PAIRS, local_dimensions

LINE = torch.tensor([[0.0], [1.0], [2.0], [4.0]])


def _by_definition(points: np.ndarray, k: int) -> list[float]:
    found = []
    for row, point in enumerate(points):
        r = sorted(math.dist(point, other) for index, other in enumerate(points) if index != row)[:k]
        found.append(-len(r) / sum(math.log(one / r[-1]) for one in r))
    return found


def test_four_points_on_a_line_by_hand() -> None:
    """Distances are 1, 2, 4; 1, 1, 3; 1, 2, 2; and 2, 3, 4: sums of log(r_i / r_3) are -log 8, -2 log 3, -log 2 and
    log(2 / 4) + log(3 / 4)."""
    expected = [3 / math.log(8), 3 / (2 * math.log(3)), 3 / math.log(2), 3 / math.log(8 / 3)]
    assert expected == pytest.approx([1.442695, 1.365359, 4.328085, 3.058636], abs=1e-6)
    assert local_dimensions(LINE).tolist() == pytest.approx(expected)
    assert local_dimensions(LINE, 3).tolist() == pytest.approx(expected)


def test_fewer_neighbours_by_hand() -> None:
    """The second point has two neighbours at the same distance, which nothing follows from: the largest dimension."""
    expected = [2 / math.log(2), LARGEST, 2 / math.log(2), 2 / math.log(1.5)]
    assert local_dimensions(LINE, 2).tolist() == pytest.approx(expected)


def test_points_that_coincide_have_no_dimension() -> None:
    """With k = 2, both neighbours of each 0 are 0; with k = 3, distances 0, 0, 1 count as 1e-12, 1e-12, 1."""
    points = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    assert local_dimensions(points, 2).tolist() == [0, 0, 0, LARGEST]
    assert local_dimensions(points, 3)[0].item() == pytest.approx(3 / (2 * 12 * math.log(10)))
    assert local_dimensions(torch.full((30, 14), 1 / 14)).tolist() == [0] * 30


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points_have_no_dimension(count: int) -> None:
    found = local_dimensions(torch.rand(count, 3))
    assert found.tolist() == [0] * count
    assert found.dtype is torch.float64


@pytest.mark.parametrize(("count", "k"), [(3, 20), (10, 20), (21, 20), (40, 20), (40, 5)])
def test_against_the_definition(count: int, k: int) -> None:
    points = np.random.default_rng(count).dirichlet(np.ones(5), count)
    assert local_dimensions(torch.from_numpy(points), k).tolist() == pytest.approx(_by_definition(points, k))


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_a_full_cube_has_its_dimension(dimensions: int) -> None:
    """Whatever space it lies in; the estimator is k / (k - 2) too high, and edges take some of that back."""
    cube = torch.rand(800, dimensions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lies_in = torch.nn.functional.pad(cube, (0, 6 - dimensions))
    found = local_dimensions(lies_in)
    assert found.mean().item() == pytest.approx(dimensions, rel=0.15)


def test_tiny_distances_are_exact() -> None:
    """Probabilities of a sure network differ by as little; |x|^2 - 2xy + |y|^2 would be all rounding."""
    near = torch.tensor([[0.5]], dtype=torch.float64) + 1e-9 * LINE.double()
    assert local_dimensions(near, 3).tolist() == pytest.approx(local_dimensions(LINE, 3).tolist(), rel=1e-5)


@given(st.floats(1e-3, 1e3), st.integers(3, 30), st.integers(2, 25))
def test_scale_and_order_do_not_matter(scale: float, count: int, k: int) -> None:
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    found = local_dimensions(points, k)
    assert ((found >= 0) & (found <= LARGEST)).all()
    torch.testing.assert_close(local_dimensions(scale * points, k), found, rtol=1e-6, atol=0)
    torch.testing.assert_close(local_dimensions(points.flip(0), k).flip(0), found, rtol=1e-9, atol=0)


@pytest.mark.parametrize("pairs", [1, 100, 101, 250, 10_000])
def test_blocks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(2))
    whole = local_dimensions(points, 7)
    monkeypatch.setattr(dimension, "PAIRS", pairs)
    sizes, cdist = [], torch.cdist

    def watching(some: Tensor, others: Tensor, **values: Any) -> Tensor:
        sizes.append(len(some) * len(others))
        return cdist(some, others, **values)

    monkeypatch.setattr(torch, "cdist", watching)
    assert torch.equal(local_dimensions(points, 7), whole)
    assert sum(sizes) == 10_000
    assert max(sizes) <= max(pairs, 100)


def test_ten_thousand_images_never_make_a_square_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    class EnoughError(Exception):
        """The first block says it all."""

    def watching(some: Tensor, others: Tensor, **values: Any) -> Tensor:
        assert len(some) >= 100
        assert len(some) * len(others) <= PAIRS == 2**20
        raise EnoughError

    monkeypatch.setattr(torch, "cdist", watching)
    with pytest.raises(EnoughError):
        local_dimensions(torch.zeros(10_000, 14))
