"""The page as a whole: what is read is arranged in words and numbers, and written into one file."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.text import label
from data.whole_files import replace_file
from runs.cells import difference, heading, legend, value
from runs.errors import RunsError
from runs.notes import named
from runs.protocol import setting
from runs.report.facts import differences, environments, of_run, summary
from runs.report.figures import CLIENTS, CURVES, DETECTION, charts, class_names, confusions_of, recall_of, spreads
from runs.report.gather import Material, gather
from runs.report.holdings import held_by_clients
from runs.run import Run
from runs.table import Line, Section, Table, table_of

HERE = Path(__file__).parent
EXTRA = ("jinja2", "plotly")
SCRIPTS = ("page.js", "controls.js")
# The page's own scripts run, by their hashes, and nothing is loaded. Plotly sets styles, and shows pixels as images.
POLICY = (
    "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none';"
    " form-action 'none'"
)


def write_page(
    names: Sequence[str], out: Path, title: str = "", baseline: str = "", columns: Sequence[str] = ()
) -> int:
    """Write the page about runs and experiments.

    Args:
        names: Their folders, or names of runs in the default folder.
        out: Replaced if it exists.
        title: Of the page; empty: derived.
        baseline: A label; empty: the experiment's, if it has one.
        columns: Of the table; empty: the default ones.

    Returns:
        Its size in bytes.

    Raises:
        RunsError: What is named cannot be shown, or the extra `report` is not installed.
    """
    check_extra()
    material = gather(names)
    table = table_of(material.entries, columns, baseline or material.baseline)
    page = render(material, table, title or material.title).encode("utf-8", "replace")
    try:
        replace_file(out, page)
    except OSError as error:
        raise RunsError(f"--out is {out}, which cannot be written: {error.strerror}.") from None
    return len(page)


def check_extra() -> None:
    """Check that what draws is installed.

    Raises:
        RunsError: It is not.
    """
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise RunsError(
            f"`report` needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; run"
            ' pip install -e ".[report]" in the app\'s folder.'
        )


def render(material: Material, table: Table, title: str) -> str:
    """The page as text."""
    import jinja2
    from plotly.offline import get_plotlyjs

    problems = [*material.problems, *table.problems, *table.notes]
    tables = [_for_people(section, problems) for section in table.sections]
    sections = [section for section in (*tables, *_the_rest(table, material)) if section.lines]
    labels = list(dict.fromkeys(line.label for section in sections for line in section.lines))
    colours = {label: number for number, label in enumerate(labels)}
    scripts = [get_plotlyjs(), *((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda text: visible(text) if type(text) is str else text,
    )  # fmt: skip
    return environment.get_template("template.html").render(
        title=title,
        summary=summary(sections, table),
        policy=POLICY.format(" ".join(map(_hash, scripts))),
        scripts=scripts,
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        table=table,
        tables=tables,
        legend=list(legend(table)),
        heading=heading,
        value=value,
        difference=difference,
        sections=sections,
        colours=colours,
        problems=problems,
        differences=differences(sections),
        environments=environments(sections),
        runs=[
            (section.title, line.label, of_run(run))
            for section in sections
            for line in section.lines
            for run in line.runs
        ],
        data=as_json(drawn(sections, labels)),
    )


def _for_people(section: Section, problems: Sequence[str]) -> Section:
    """Notes on lines stand below the table, and not again if they are `problems`; every line has a name."""
    notes = (*(f"{named(line.label)}: {line.note}" for line in section.lines if line.note), *section.notes)
    return replace(
        section,
        lines=tuple(replace(line, label=_label(line.label)) for line in section.lines),
        baseline=_label(section.baseline) if section.baseline else "",
        notes=tuple(note for note in notes if not any(problem.endswith(note) for problem in problems)),
    )


def _the_rest(table: Table, material: Material) -> list[Section]:
    """Runs that the table leaves out, such as those that still run, by their settings."""
    shown = {run.folder for section in table.sections for line in section.lines for run in line.runs}
    rest: dict[str, dict[str, list[Run]]] = {}
    for entry in material.entries:
        if entry.run.folder not in shown:
            title = f"Not in the table: {entry.setting or setting(entry.run)}"
            rest.setdefault(title, {}).setdefault(_label(entry.label), []).append(entry.run)
    return [
        Section(title, "", tuple(Line(label, tuple(runs), {}) for label, runs in lines.items()))
        for title, lines in rest.items()
    ]


def _label(line: str) -> str:
    """An experiment without axes has one line, without a name."""
    return visible(line) or named("")


def visible(text: str) -> str:
    """With "?" for what cannot be seen, such as marks that turn around what follows; commands alone stay exact."""
    return label(text, len(text))


def drawn(sections: Sequence[Section], labels: Sequence[str]) -> dict[str, Any]:
    """What `page.js` draws."""
    settings = []
    for section in sections:
        runs = [run for line in section.lines for run in line.runs]
        names = [visible(name) for name in class_names(runs)]
        held = next((found for run in runs if (found := held_by_clients(run))), None)
        settings.append(
            {
                "labels": [line.label for line in section.lines],
                "curves": charts(CURVES, section.lines),
                "visits": [*charts(CLIENTS, section.lines), *spreads(section.lines)],
                "detection": charts(DETECTION, section.lines),
                "recall": recall_of(section.lines, names),
                "confusion": confusions_of(section.lines, names),
                "clients": held,
            }
        )
    return {"labels": list(labels), "settings": settings}


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def as_json(values: Any) -> str:
    """For a script element: no text can end it."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
