"""The numbers of a table in words, as all formats for people show them."""

import math
from collections.abc import Iterator

from config.measure import CLEAN_TEST, Measure
from runs.notes import named
from runs.statistics import Stat
from runs.table import Column, Line, Section, Table

MARK = "†"  # at columns that clean test picked
NOTHING = "-"


def heading(column: Column) -> str:
    """``last round, %``."""
    title = f"{column.title}{MARK if column.picked_on_test else ''}"
    return f"{title}, {column.unit}" if column.unit else title


def value(line: Line, column: Column) -> str:
    """``71.23 ± 0.45``; how many seeds, where a column has not as many as the line."""
    if column.key in line.instead:
        return line.instead[column.key]
    stat = line.stats.get(column.key)
    if stat is None or not math.isfinite(stat.mean):
        return NOTHING
    text = with_spread(stat.mean, stat.sd, column.digits)
    return text if stat.seeds == len(line.runs) else f"{text} ({_seeds(stat.seeds)})"


def difference(line: Line, column: Column) -> str:
    """``+1.20 ± 0.80``, with half the width of the interval; empty for lines that are not compared."""
    stat = line.stats.get(column.key)
    if stat is None or stat.difference is None or not math.isfinite(stat.difference):
        return ""
    text = with_spread(stat.difference, stat.interval, column.digits, sign="+")
    return text if stat.pairs == len(line.runs) else f"{text} ({_seeds(stat.pairs)})"


def with_spread(mean: float, spread: float | None, digits: int, sign: str = "") -> str:
    text = number(mean, digits, sign)
    return text if spread is None or not math.isfinite(spread) else f"{text} ± {number(spread, digits)}"


def number(value: float, digits: int, sign: str = "") -> str:
    """With a comma after each three digits; zero has no sign."""
    text = f"{value:{sign},.{digits}f}"
    return text if text.strip("+-0.,") else text.lstrip("+-")


def interval(stat: Stat) -> tuple[float, float] | None:
    """The ends of the 95 % interval of the difference."""
    if stat.difference is None or stat.interval is None:
        return None
    return stat.difference - stat.interval, stat.difference + stat.interval


def compared(section: Section, column: Column) -> bool:
    """Whether any line has a difference in this column."""
    return any(difference(line, column) for line in section.lines)


def legend(table: Table) -> Iterator[str]:
    """What the numbers are, a sentence each."""
    columns = table.columns
    yield f"Mean ± standard deviation (of the sample) over seeds; {_measured(table)}."
    bases = list(dict.fromkeys(section.baseline for section in table.sections if section.baseline))
    if any(compared(section, column) for section in table.sections for column in columns):
        names = ", ".join(map(named, bases))
        yield f"Differences to {names} are paired by seed; ± is half the width of their 95 % interval (Student's t)."
    if any(column.picked_on_test for column in columns):
        yield (
            f"{MARK} picked on test: clean test itself chose the round, so the number is higher than what a model"
            " chosen without test labels would reach."
        )


def measured_on(table: Table) -> list[Measure]:
    """What accuracies are on, each once."""
    return list({section.measure.name: section.measure for section in table.sections}.values()) or [CLEAN_TEST]


def _measured(table: Table) -> str:
    found = measured_on(table)
    if len(found) > 1:
        return (
            "accuracies are on what a part's title says, or else on clean test, and must not be compared between parts"
        )
    return f"accuracies are on {found[0].name}" if found[0] else "no accuracy was measured"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
