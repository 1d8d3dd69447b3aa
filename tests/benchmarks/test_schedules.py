"""The grid of schedules: rows of the methods' first setting that differ in the schedule alone."""

from pathlib import Path

from benchmarks.methods.cost import GRIDS
from config.check import examine
from config.resolve import app_defaults
from experiments.grid import combinations
from experiments.grid_file import read_grid

GRID = Path(__file__).parents[2] / "benchmarks" / "schedules" / "iid.toml"


def test_its_constant_rows_are_those_of_the_methods_first_setting(tmp_path: Path) -> None:
    (first,) = (path for path in GRIDS if path.stem == "iid")
    theirs = {(one.row.label, one.row.seed): one.row for one in combinations(read_grid(first)[0])}
    grid, problems = read_grid(GRID)
    assert problems == []
    rows = [one.row for one in combinations(grid)]
    assert len(rows) == 18
    for row in rows:
        method, schedule = row.label.split(", ")
        config = {**row.config}
        assert config.pop("lr-schedule") == schedule
        assert config == theirs[method, row.seed].config
        assert row.federation == theirs[method, row.seed].federation
        resolved, found = examine({**row.config, "data-dir": str(tmp_path)}, app_defaults())
        assert (resolved.stem, found) == ("imagenet", [])
