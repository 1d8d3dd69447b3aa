"""A table of runs: parts by setting, a line for each label, statistics over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from runs.entries import Entry
from runs.run import Run


@dataclass(frozen=True)
class Column:
    """A number of each run.

    Attributes:
        key: As it is named after ``--columns``.
        title: As it is shown.
        unit: ``%``, ``s``, ...; empty for plain numbers.
        digits: After the decimal point.
        picked_on_test: Whether clean test itself decided which round it shows: not an estimate of anything.
    """

    key: str
    title: str
    unit: str = ""
    digits: int = 2
    picked_on_test: bool = False


@dataclass(frozen=True)
class Stat:
    """A column over the seeds of a line.

    Attributes:
        mean: In the column's unit.
        sd: Standard deviation of the sample; None of one seed.
        seeds: How many.
        difference: Mean over the seeds that both have of this line minus the baseline; None without a comparable
            baseline.
        interval: Half the width of its 95 % interval (Student's t); None of fewer than two pairs.
        pairs: How many seeds both have.
    """

    mean: float
    sd: float | None
    seeds: int
    difference: float | None = None
    interval: float | None = None
    pairs: int = 0


@dataclass(frozen=True)
class Line:
    """All runs of a label in one setting.

    Attributes:
        label: Its name.
        runs: By seed.
        stats: By the column's key; a column that no run has is missing.
        note: Why it is not compared with the baseline; empty if it is, or is the baseline.
    """

    label: str
    runs: tuple[Run, ...]
    stats: dict[str, Stat]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What shares its data and its partition.

    Attributes:
        title: In words.
        baseline: Label of the line that the others are compared with; empty without one.
        lines: In the order in which labels first came.
        notes: What readers must know: tuning budgets, runs that are not complete.
    """

    title: str
    baseline: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The whole.

    Attributes:
        columns: That were asked for.
        sections: In the order in which settings first came.
        problems: A sentence for each run or pair that was not averaged or compared, and did not say that it would not.
    """

    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    problems: tuple[str, ...] = ()


def table_of(entries: Sequence[Entry], columns: Sequence[str] = (), baseline: str = "") -> Table:
    """The table of these runs.

    Args:
        entries: Complete or not; those that are not are named in the notes and left out.
        columns: Keys; empty for the default ones.
        baseline: A label.

    Raises:
        RunsError: There is no such column or label.
    """
    raise NotImplementedError
