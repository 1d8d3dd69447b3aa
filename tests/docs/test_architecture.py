"""The picture and the table of docs/architecture.md are those of the code."""

import re

from tests.docs.pages import ROOT
from tests.import_graph import LAYERS, graph, picture

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_picture_has_the_arrows_of_the_imports() -> None:
    """`python -m tests.import_graph --mermaid` prints them."""
    (chart,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    drawn = [line.strip() for line in chart.splitlines() if "-->" in line]
    assert drawn == picture({package: targets for package, targets in graph().items() if package != "benchmarks"})
    assert set(re.findall(r"^ +(\w+)\[", chart, re.MULTILINE)) == {*LAYERS} - {"benchmarks"}


def test_every_package_has_one_line_and_it_names_what_the_package_imports() -> None:
    rows = dict(re.findall(r"^\| \[`([a-z_]+)(?:/|\.py)`\]\([^)]+\) \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == {*LAYERS}
    for package, targets in graph().items():
        if not rows[package].startswith(("anything", "everything")):
            assert set(re.findall(r"`(\w+)`", rows[package].split(";")[0])) == targets, package


def test_arrows_that_follow_from_others_are_left_out() -> None:
    assert picture({"c": {"a", "b"}, "b": {"a"}, "a": set(), "d": set()}) == ["c --> b", "b --> a"]
