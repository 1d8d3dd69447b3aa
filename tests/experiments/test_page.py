"""docs/experiments.md: its example is a plan, and it names every key there is."""

import re
from pathlib import Path

import pytest

from experiments.checks import plan_of
from experiments.grid_file import KNOWN, NOT_HERE, RESERVED, TABLES
from runs.protocol import OF_A_SETTING

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "grid.toml").write_text(EXAMPLE[0], encoding="utf-8")
    return tmp_path / "grid.toml"


def test_the_example_is_a_plan(grid: Path, tmp_path: Path) -> None:
    assert len(EXAMPLE) == 1
    plan = plan_of(grid, tmp_path / "out")
    first = [row for row in plan.rows if row.seed == 1]
    assert len(first) == 4 * 2 * 2 - 2
    assert len(plan.rows) == 3 * len(first)
    assert {row.label for row in first} == {"ce", "elr", "gce, lr 0.1", "on clean images"}
    assert {row.setting for row in first} == {
        f"{noise}, {clients} clients" for noise in ("as released", "symmetric") for clients in (10, 20)
    }
    assert {row.label: row.trials for row in first}["gce, lr 0.1"] == 3
    assert [row.setting for row in first if row.reference] == ["as released, 10 clients", "as released, 20 clients"]
    assert {row.setting[-10:]: row.federation["num-supernodes"] for row in first} == {
        "10 clients": 10,
        "20 clients": 20,
    }
    assert plan.keep == "results"


def test_every_key_is_explained_and_in_the_example() -> None:
    for key in KNOWN:
        heading = f"[{key}]" if key in TABLES else f"[[{key}]]" if key == "exclude" else key
        assert f"| `{heading}` |" in PAGE, key
        assert heading in EXAMPLE[0], key
    for word in (*RESERVED, "federation"):
        assert f"| `{word}` |" in PAGE, word
        assert f"{word} = " in EXAMPLE[0], word
    settings = PAGE.split("makes **settings**")[1].split("\n\n")[0]
    assert all(f"`{key}`" in settings for key in OF_A_SETTING)
    assert all(f"`{key}`" in PAGE for key in NOT_HERE)
