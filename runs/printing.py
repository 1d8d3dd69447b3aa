"""How commands show things: tables that fit the terminal and are whole in a pipe, JSON, sizes and times."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data.text import label

UNKNOWN = "-"
LONGEST_NAME = 255  # characters: that of a folder
UNENDING = 100_000  # columns of what is no terminal


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    below: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Show a table: in a terminal within its width, long cells on several lines; elsewhere each row on one line.

    Args:
        columns: Titles.
        rows: A text for each column; whoever wrote it, it is shown as it is.
        right: Titles of columns of numbers, which stay on one line; the titles do so where there is room.
        whole: Titles of other columns that do.
        below: In a terminal that is too narrow, the column whose cells go below those of another one.
    """
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    console = Console(highlight=False)
    table = _table(columns, cells, right, whole)
    if (
        console.is_terminal
        and console.measure(table, options=console.options.update(width=UNENDING)).maximum > console.width
    ):
        table = _table(columns, cells, right, whole, below, narrow=True)
    _print(table)


def _table(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    right: Sequence[str],
    whole: Sequence[str],
    below: Mapping[str, str] = MappingProxyType({}),
    narrow: bool = False,
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    stacks = [[top, *(one for one in columns if below.get(one) == top)] for top in columns if top not in below]
    titles = [[line for one in stack for line in _title(one, rows, narrow and one in right)] for stack in stacks]
    height = max(map(len, titles))
    for stack, title in zip(stacks, titles, strict=True):
        lines = title + [""] * (height - len(title))
        align: Literal["right", "left"] = "right" if stack[0] in right else "left"
        table.add_column(Text("\n".join(lines)), overflow="fold", justify=align, no_wrap=stack[0] in (*right, *whole))
    for row in rows:
        table.add_row(*(_cell([row[one] for one in stack]) for stack in stacks))
    return table


def _title(column: str, rows: Sequence[Mapping[str, str]], narrow: bool) -> list[str]:
    """Its lines; if it is to be narrow, no longer than the column's cells or the title's longest word."""
    title = label(column, LONGEST_NAME)
    if not narrow:
        return [title]
    width = max(map(cell_len, [*title.split(), *(row[column] for row in rows)]))
    return textwrap.wrap(title, width, break_long_words=False)


def _cell(lines: Sequence[str]) -> Text:
    """The first line, and what is known of the others below it in grey."""
    cell = Text(label(lines[0], LONGEST_NAME))
    for line in (line for line in lines[1:] if line not in ("", UNKNOWN)):
        cell.append(f"\n{label(line, LONGEST_NAME)}", "dim")
    return cell


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Show what is known of one thing: a name and a text each, whose lines stay lines."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        lines = [label(line, UNENDING) for line in text.split("\n")]
        table.add_row(Text(name, style="bold"), Text("\n".join(lines)))
    _print(table)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """Print lines in which somebody else's names may stand."""
    for line in text.split("\n"):
        typer.echo(label(line, UNENDING))


def in_bytes(count: int) -> str:
    """A size for people: ``94.2 MiB``."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1023.5 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if size >= 100 or units[0] == "B" else f"{size:.1f} {units[0]}"


def in_minutes(time: datetime | None) -> str:
    """A time as the clock here shows it, to the minute."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time else UNKNOWN


def in_percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def iso(time: datetime | None) -> str | None:
    """A time for a script: in UTC, to the second."""
    return time.isoformat(timespec="seconds") if time else None


def counted(count: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    console = Console(highlight=False, width=UNENDING)
    with console.capture() as shown:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in shown.get().splitlines()))
