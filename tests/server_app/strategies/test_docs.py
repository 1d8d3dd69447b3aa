"""docs/strategies.md and docs/settings.md against the strategies themselves."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from config.run_config import RunConfig
from server_app.privacy.clipping_norms import PRIVACY
from server_app.privacy.private_strategy import takes_one_mean
from server_app.strategies import STRATEGIES
from server_app.strategy import build_strategy

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in DOCS.splitlines()
    if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 8
}
COMMON = {"min_train_nodes", "min_evaluate_nodes", "min_available_nodes"}
# Its default is another key's value.
DEFAULTS = {("qfedavg", "client_learning_rate"): "the round's learning rate"}


def _strategy(name: str) -> Any:
    return build_strategy(RunConfig(strategy=name))


def _documented(name: str, field: dataclasses.Field[Any]) -> str:
    rule = field.metadata["rule"]
    allowed = (rule.short or rule.allowed).removeprefix("a number ")
    default = DEFAULTS.get((name, field.name), field.default)
    return f"`{field.name.replace('_', '-')}` = {default}, {allowed}"


def test_the_table_has_a_row_for_every_strategy_in_the_order_of_the_code() -> None:
    assert list(ROWS) == list(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_row_lists_every_parameter_with_its_default_and_what_is_allowed(name: str) -> None:
    fields = [field for field in dataclasses.fields(_strategy(name)) if "rule" in field.metadata]
    assert {field.name for field in fields} >= COMMON
    own = [_documented(name, field) for field in fields if field.name not in COMMON]
    assert set(ROWS[name][1].split("; ")) == set(own or ["none"])
    for field in fields:
        if field.name in COMMON:
            assert f"\n- {_documented(name, field)}: " in DOCS


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_row_is_right_about_memory_replies_state_and_paper(name: str) -> None:
    strategy, (_, _, memory, least, state, statistics, paper) = _strategy(name), ROWS[name]
    assert memory == ("holds all" if strategy.holds_all_replies else "streams")
    assert re.match(r"\d+", least)[0] == str(strategy.least_replies)  # type: ignore[index]  # with f = 0 and q = 1
    kinds = getattr(strategy, "MOMENTS", ())
    assert set(state.split(", ")) == set(kinds or ["none"]) - ({"first-moment"} if name == "fedadagrad" else set())
    assert statistics
    assert re.fullmatch(r"none|\[.+ \d{4}\]\(https://\S+\)", paper)


@pytest.mark.parametrize("name", [name for name in PRIVACY if name != "none"])
def test_the_table_of_privacy_lists_every_parameter(name: str) -> None:
    rows = dict(re.findall(r"^\| `((?:server|client)-\w+)` \|.*\| ([^|]+) \|$", DOCS, re.MULTILINE))
    documented = rows[name].replace("must be set", "= nan")
    if same := re.match(r"as `(.*)`$", documented):
        assert PRIVACY[name] is PRIVACY[same[1]]
        documented = rows[same[1]].replace("must be set", "= nan")
    cls: Any = PRIVACY[name]
    assert documented == "; ".join(_documented(name, field) for field in dataclasses.fields(cls))
    allowed = ", ".join(f"`{name}`" for name, cls in STRATEGIES.items() if takes_one_mean(cls))
    assert f"no more than the mean: {allowed}, and a" in DOCS


def test_settings_and_pyproject_list_every_name() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `strategy` \|.*$", page, re.MULTILINE)
    names = row.rsplit("| ", 1)[1].split(", or ")[0].split(", ")
    assert names == ["auto", *STRATEGIES]
    assert "(strategies.md)" in row
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    comment = re.search(r"^strategy = .*(?:\n +#.*)+$", pyproject, re.MULTILINE)
    assert comment is not None
    assert [name for name in re.findall(r"\w+", comment[0]) if name in STRATEGIES] == ["fedavg", *STRATEGIES]
