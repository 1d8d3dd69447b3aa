"""Rows of the methods' table: appended to a JSON-lines file, and summarised over seeds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LAST = 5  # rounds whose mean accuracy is a run's result: with few clients a round, single rounds jump by some points
BASE = "ce"  # what all others are compared with
COLUMNS = (
    "", f"last {LAST} rounds, %", "sd", "best round, % (picked on test)", f"minus {BASE}, points", "sd of that",
    "more than the spread", "seeds", f"time of a visit, x {BASE}",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        setting: Name of its setting.
        method: Name of its row in the table, which need not be the method's own.
        seed: Of the run.
        mark: Over everything that was set for the run: with another mark it is another run.
        accuracy: On clean test after each round, in percent.
        seconds: Wall time of the run with its start, on a machine that may have done other work.
    """

    setting: str
    method: str
    seed: int
    mark: str
    accuracy: list[float]
    seconds: float

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.setting, self.method, self.seed, self.mark

    @property
    def result(self) -> float:
        return statistics.fmean(self.accuracy[-LAST:])


@dataclass(frozen=True)
class Cost:
    """What a visit costs, relative to one of `BASE`; `ratios` has one number for each pair of visits."""

    setting: str
    method: str
    mark: str
    ratios: list[float]


def read(path: Path) -> tuple[list[Row], list[Cost]]:
    """What the file holds; a line that a kill cut off is skipped."""
    rows, costs = [], []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "ratios" in values:
            costs.append(Cost(**values))
        else:
            rows.append(Row(**values))
    return rows, costs


def append(path: Path, entry: Row | Cost) -> None:
    """Add one line, which does not join one that a kill cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, 2) - 1))
        cut_off = file.read() not in (b"", b"\n")
        file.write((b"\n" if cut_off else b"") + json.dumps(asdict(entry)).encode() + b"\n")


def table(rows: Sequence[Row], costs: Mapping[str, float], methods: Sequence[str]) -> list[tuple[Any, ...]]:
    """The table of one setting, a row for each of `methods` that has been run; see `COLUMNS`.

    Runs of one seed share their partition, initial weights and clients of each round, so a method is compared with
    `BASE` seed by seed. Its difference is more than the spread if it is larger than each of three standard deviations
    over seeds: the method's, the base's, and that of the differences.

    Args:
        rows: Of one setting; of each method and seed at most one.
        costs: By method.
        methods: In the table's order.
    """
    base = {row.seed: row.result for row in rows if row.method == BASE}
    lines = []
    for method in methods:
        if not (own := {row.seed: row for row in rows if row.method == method}):
            continue
        results = {seed: row.result for seed, row in own.items()}
        best = statistics.fmean(max(row.accuracy) for row in own.values())
        versus = [result - base[seed] for seed, result in results.items() if seed in base]
        difference = statistics.fmean(versus) if versus and method != BASE else None
        spreads = [spread(list(results.values())), spread(list(base.values())), spread(versus)]
        lines.append(
            (
                method, statistics.fmean(results.values()), spreads[0], best, difference,
                spreads[2] if method != BASE else None, beyond(difference, spreads), len(own), costs.get(method),
            )
        )  # fmt: skip
    return lines


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def beyond(difference: float | None, spreads: Sequence[float | None]) -> str:
    """Whether the difference is larger than every spread; empty where that is unknown."""
    known = [one for one in spreads if one is not None]
    if difference is None or len(known) < len(spreads):
        return ""
    return ("yes" if difference > 0 else "yes, below") if abs(difference) > max(known) else "no"


def markdown(lines: Sequence[Sequence[Any]]) -> str:
    """Lines of `table` as they are pasted into RESULTS.md."""
    shown = [[_shown(column, cell) for column, cell in zip(COLUMNS, line, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [list(COLUMNS), ["---"] * len(COLUMNS), *shown])


def _shown(column: str, cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        sign = "+" if column.startswith("minus") else ""
        return f"{cell:{sign}.{2 if column.startswith('time') else 1}f}"
    return str(cell)
