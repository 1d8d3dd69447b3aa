"""Reads the docs as a reader would: their links, the code they quote, and the code that they ask to be run."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"(?:<!-- quotes (?P<source>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def module_of(path: str) -> str:
    """The name under which the file can be imported."""
    place = Path(path).with_suffix("")
    return ".".join(place.parent.parts if place.name == "__init__" else place.parts)


def quotes(page: Path) -> list[tuple[str, str]]:
    """Source file and code of each block that a page quotes."""
    return [(match["source"], match["code"]) for match in FENCE.finditer(_text(page)) if match["source"]]


def blocks(page: Path) -> list[str]:
    """The other blocks of Python."""
    return [match["code"] for match in FENCE.finditer(_text(page)) if not match["source"]]


def run(page: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Execute the blocks one after another; returns what they define."""
    module = ModuleType("page")  # dataclasses look their module up
    names = module.__dict__
    names.update(given or {})
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec", dont_inherit=True), names)
    return names


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
