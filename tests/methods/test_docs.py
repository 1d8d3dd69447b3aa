"""docs/methods.md lists every method with its parameters."""

import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from methods import METHODS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
TABLE = TEXT[TEXT.index("| `ce` |") :].partition("\n\n")[0]
ROWS = {
    name: row.split(" | ") for name, row in re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", TABLE, re.MULTILINE)
}  # what, parameters, passes, kept, server, paper


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d+/\d+", text):
        return float(Fraction(text))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def test_every_method_has_a_row_in_the_tables_order() -> None:
    assert list(ROWS) == list(METHODS)


@pytest.mark.parametrize("name", list(METHODS))
def test_rows_list_parameters_with_their_defaults(name: str) -> None:
    cls: Any = METHODS[name]
    defaults = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(cls)}
    documented = {key: _value(value) for key, value in re.findall(r"`([a-z-]+)` = ([^;]+)", ROWS[name][1])}
    assert documented == defaults
    kept, server, paper = ROWS[name][3:]
    assert (kept != "nothing") == cls.remembers
    assert re.fullmatch(r"\[.+ \d{4}\]\(https://\S+\)", paper)
    assert (f"`{cls.strategy}`" in server) == (cls.strategy != "fedavg")


def test_the_settings_page_lists_every_name() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `method` \|.*$", page, re.MULTILINE)
    assert row.rsplit(" | ", 1)[1].removesuffix(" |").split(", ") == [*METHODS, "or your own class as `module:Class`"]
