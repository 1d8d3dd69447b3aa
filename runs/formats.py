"""A table as text, Markdown, LaTeX, CSV or JSON. Labels, titles and notes are somebody else's text, and escaped."""

import csv
import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from runs.averaging import seed_of
from runs.cells import compared, difference, heading, interval, legend, measured_on, value
from runs.errors import RunsError
from runs.markup import markdown
from runs.notes import named
from runs.scores import DEFAULT
from runs.table import Column, Line, Section, Table

WIDTH = 80  # of text; wider only where one column needs it
NAME_WIDTH, HEADING_WIDTH = 24, 15
CSV_PARTS = ("mean", "sd", "seeds", "difference", "low", "high", "pairs")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs what begins with one of them
NUMBER = re.compile(r"([+-]?[\d,.]+(?: ± [\d,.]+)?)((?: \(\d+ seeds?\))?)")
PLUS_MINUS = r"\pm"
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "^": r"\textasciicircum{}",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "†": r"$\dagger$",
}  # fmt: skip


def render(table: Table, format: str) -> str:
    """The table in one of `FORMATS`, with a line break at the end.

    Raises:
        RunsError: There is no such format.
    """
    if format not in FORMATS:
        raise RunsError(f"there is no format {format!r}; it must be one of {', '.join(FORMATS)}.")
    text = FORMATS[format](table)
    return text if text.endswith("\n") else f"{text}\n"


def as_text(table: Table) -> str:
    """For a terminal: differences stand below the numbers they belong to."""
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, force_terminal=False, highlight=False)
    for section in table.sections:
        console.print(Text(named(section.title)))
        for block in _blocks(section, table.columns) if section.lines else ():
            drawn, width = _drawn(section, block)
            console.print(drawn, width=width, crop=False)
            console.print()
        for sentence in _about(section):
            console.print(Text(sentence))
        console.print()
    for sentence in (*legend(table), *table.notes):
        console.print(Text(sentence))
    lines = (line.rstrip() for line in out.getvalue().split("\n"))
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _blocks(section: Section, columns: Sequence[Column]) -> list[list[Column]]:
    """Columns that fit beside each other."""
    blocks: list[list[Column]] = []
    for column in columns:
        if blocks and _drawn(section, [*blocks[-1], column])[1] <= WIDTH:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    return blocks or [[]]


def _drawn(section: Section, columns: Sequence[Column]) -> tuple[Any, int]:
    """Some columns of a section, and how wide they are."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column(max_width=NAME_WIDTH, overflow="fold")
    drawn.add_column("seeds", justify="right")
    cells = [[_two_lines(line, column) for line in section.lines] for column in columns]
    for column, own in zip(columns, cells, strict=True):
        widest = max((len(part) for cell in own for part in cell.split("\n")), default=0)
        kept = heading(column).replace(", %", ",\N{NO-BREAK SPACE}%")
        title = textwrap.fill(kept, max(widest, HEADING_WIDTH), break_long_words=False)
        drawn.add_column(Text(title.replace("\N{NO-BREAK SPACE}", " ")), justify="right", no_wrap=True)
    for number, line in enumerate(section.lines):
        drawn.add_row(Text(named(line.label)), str(len(line.runs)), *(Text(own[number]) for own in cells))
    return drawn, Console(width=10_000).measure(drawn).maximum


def _two_lines(line: Line, column: Column) -> str:
    below = difference(line, column)
    return f"{value(line, column)}\n{below}" if below else value(line, column)


def as_markdown(table: Table) -> str:
    """For GitHub."""
    parts = []
    for section in table.sections:
        parts.append(f"**{markdown(named(section.title))}**")
        head, *rows = _grid(section, table.columns)
        rule = ["---", *["---:"] * (len(head) - 1)]
        lines = [f"| {' | '.join(map(markdown, cells))} |" for cells in (head, *rows)]
        lines.insert(1, f"| {' | '.join(rule)} |")
        parts += ["\n".join(lines)] if rows else []
        parts.append("\n".join(f"- {markdown(one)}" for one in _about(section)))
    parts += [markdown(sentence) for sentence in (*legend(table), *table.notes)]
    return "\n\n".join(filter(None, parts))


def as_latex(table: Table) -> str:
    """A floating table for each section; needs the package booktabs."""
    about = " ".join(map(_latex, (*legend(table), *table.notes)))
    return "\n\n".join(_latex_section(section, table.columns, about) for section in table.sections)


def _latex_section(section: Section, columns: Sequence[Column], about: str) -> str:
    head, *rows = _grid(section, columns)
    title = _latex(named(section.title))
    notes = " ".join(map(_latex, _about(section)))
    if not rows:
        return f"% {title}: {notes}"
    # In braces, or a name in brackets would be taken for an argument of the line break before it.
    lines = [rf"{' & '.join(f'{{{_latex_cell(cell)}}}' for cell in cells)} \\" for cells in (head, *rows)]
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{title}. {about}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
            r"\bottomrule", r"\end{tabular}", *([rf"\par\smallskip{{\footnotesize {notes}}}"] if notes else []),
            r"\end{table}",
        ]
    )  # fmt: skip


def _latex_cell(text: str) -> str:
    """Numbers as mathematics, so that a minus is one."""
    found = NUMBER.fullmatch(text)
    if not found:
        return _latex(text)
    return f"${found[1].replace('±', PLUS_MINUS).replace(',', '{,}')}${_latex(found[2])}"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _grid(section: Section, columns: Sequence[Column]) -> list[list[str]]:
    """Heading and lines, with differences in columns of their own."""
    head = ["", "seeds"]
    for column in columns:
        head += [heading(column), *([f"minus {named(section.baseline)}"] if compared(section, column) else [])]
    rows = [head]
    for line in section.lines:
        row = [named(line.label), str(len(line.runs))]
        for column in columns:
            row += [value(line, column), *([difference(line, column)] if compared(section, column) else [])]
        rows.append(row)
    return rows


def _about(section: Section) -> list[str]:
    """The section's notes, and those of its lines."""
    return [*(f"{named(line.label)}: {line.note}" for line in section.lines if line.note), *section.notes]


def as_csv(table: Table) -> str:
    """A row for each line, numbers in full; by RFC 4180."""
    out = io.StringIO()
    writer = csv.writer(out)
    head = ["section", "line", "baseline", "seeds"]
    on = measured_on(table)
    accuracy = on[0].words if len(on) == 1 else "accuracy"
    for column in table.columns:
        of = f"{accuracy}, " if column.key in DEFAULT else ""
        head += [f"{of}{column.title}{f', {column.unit}' if column.unit else ''}: {part}" for part in CSV_PARTS]
    writer.writerow([*map(as_cell, head), "accuracy on", "note"])
    for section in table.sections:
        for line in section.lines:
            numbers = [cell for column in table.columns for cell in _numbers(line, column)]
            names = (section.title, line.label, section.baseline)
            said = [
                f"{column.title}: {line.instead[column.key]}." for column in table.columns if column.key in line.instead
            ]
            about = section.measure.name, as_cell(" ".join([line.note, *said]).strip())
            writer.writerow([*map(as_cell, names), len(line.runs), *numbers, *about])
    return out.getvalue()


def _numbers(line: Line, column: Column) -> list[str]:
    """One cell for each of `CSV_PARTS`."""
    stat = line.stats.get(column.key)
    if stat is None:
        return [""] * len(CSV_PARTS)
    low, high = interval(stat) or (None, None)
    parts = (stat.mean, stat.sd, stat.seeds, stat.difference, low, high, stat.pairs or None)
    return ["" if part is None or not math.isfinite(part) else repr(part) for part in parts]


def as_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    encodable = text.encode("utf-8", "replace").decode()
    return f"'{encodable}" if encodable.startswith(FORMULA) else encodable


def as_json(table: Table) -> str:
    """All of it, numbers in full; what is not finite is null."""
    sections = [
        {
            "title": section.title,
            "baseline": section.baseline,
            "accuracy-on": section.measure.name,
            "lines": [_line(line) for line in section.lines],
            "notes": section.notes,
        }
        for section in table.sections
    ]
    columns = [{name.replace("_", "-"): part for name, part in asdict(column).items()} for column in table.columns]
    whole = {"columns": columns, "about": [*legend(table)], "sections": sections}
    return json.dumps({**whole, "problems": table.problems, "notes": table.notes}, indent=1, allow_nan=False)


def _line(line: Line) -> dict[str, Any]:
    stats = {}
    for key, stat in line.stats.items():
        low, high = interval(stat) or (None, None)
        by_seed = {seed: _finite(number) for seed, number in stat.by_seed.items()}
        numbers = {**asdict(stat), "low": low, "high": high}
        stats[key] = {name: _finite(part) for name, part in numbers.items() if name != "by_seed"} | {"by-seed": by_seed}
    runs = [{"seed": seed_of(run), "folder": str(run.folder)} for run in line.runs]
    return {"label": line.label, "runs": runs, "stats": stats, "instead": line.instead, "note": line.note}


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
    "json": as_json,
}
