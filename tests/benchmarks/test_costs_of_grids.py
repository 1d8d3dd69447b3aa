"""Which rows of which grids `python -m benchmarks.methods.cost` measures."""

from pathlib import Path

import pytest

from benchmarks.methods import cost
from data.errors import DataError

BASE = """title = "Any"
baseline = "ce"
seeds = [1, 2]

[base]
data-dir = "{data}"

[axes]
method = ["ce", {others}]

[federation]
num-supernodes = 4
"""


def _grids(folder: Path, **others: str) -> list[Path]:
    """Grids with these methods besides `ce`."""
    (folder / "data").mkdir()
    paths = []
    for name, more in others.items():
        paths.append(folder / f"{name}.toml")
        paths[-1].write_text(BASE.format(data=folder / "data", others=more), encoding="utf-8")
    return paths


def test_a_method_need_not_be_in_all_grids(tmp_path: Path) -> None:
    one, two = _grids(tmp_path, one='"gce", "elr"', two='"elr"')
    found = cost.rows_of([one, two], ["gce", "ce"])
    assert {path: [row.label for row in rows] for path, rows in found.items()} == {one: ["ce", "gce"], two: ["ce"]}
    assert list(cost.rows_of([one, two], ["gce"])) == [one]
    every = cost.rows_of([one, two], [])
    assert [[row.label for row in every[path]] for path in (one, two)] == [["ce", "gce", "elr"], ["ce", "elr"]]


@pytest.mark.parametrize("methods", [["nobody"], ["ce", "nobody"]])
def test_a_method_that_is_in_no_grid_is_refused_beside_known_ones(tmp_path: Path, methods: list[str]) -> None:
    one, two, three = _grids(tmp_path, one='"gce"', two='"elr"', three='"sce"')
    with pytest.raises(DataError, match=r"^--method is nobody; .*one\.toml has ce, gce\.$"):
        cost.rows_of([one], methods)
    with pytest.raises(DataError, match=r"^--method is nobody; .*one\.toml and .*two\.toml have ce, gce, elr\.$"):
        cost.rows_of([one, two], methods)
    with pytest.raises(DataError, match=r"^--method is nobody; the 3 grids have ce, gce, elr, sce\.$"):
        cost.rows_of([one, two, three], methods)
