"""Somebody else's text inside Markdown and YAML, of which it must not become a part."""

import json
import re
from collections.abc import Iterable, Sequence

from data.text import label

LONGEST = 200  # characters of a name


def markdown(text: str) -> str:
    """Text that shows as it is, in a table as well."""
    escaped = re.sub(r"([\\`*_\[\]|~$#!])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return escaped.replace(">", "&gt;")


def name(text: str) -> str:
    """A name for Markdown: cut, on one line, with "?" for what cannot be printed."""
    return markdown(label(text, LONGEST))


def code(text: str) -> str:
    """A name in a span of code, in a table as well."""
    plain = label(text, LONGEST).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if "`" in plain or not plain.strip() else ""
    return f"{fence}{space}{plain}{space}{fence}"


def quoted(text: str) -> str:
    """A name as a scalar of YAML: a string of JSON, whose characters can all be printed, is one."""
    return json.dumps(label(text, LONGEST), ensure_ascii=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table of cells that are Markdown already; its last columns, so many, are aligned to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
