"""How long the rows that are left will take, by what rows have taken so far."""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from statistics import fmean

from config.resolve import app_defaults, fused_values
from experiments.plan import Experiment, Row
from experiments.state import run_of
from runs.run import Run

CALLED = re.compile(r"^# (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d): flwr run ", re.MULTILINE)


def seconds_left(experiment: Experiment, rows: Sequence[Row], jobs: int) -> float | None:
    """Seconds until these rows are done, `jobs` at a time; None as long as no round of any row is known.

    A round of a row takes as long as the mean of its own label's, or of all where that has none yet. Each start adds
    what starts took beside their rounds.
    """
    runs = {row.name: run for row in experiment.plan.rows if (run := run_of(experiment, row))}
    paces = _paces(experiment, runs)
    if not paces:
        return None
    overall = fmean(seconds for each in paces.values() for seconds in each)
    found = [_start_of(experiment, row, runs[row.name]) for row in experiment.plan.rows if row.name in runs]
    starts = [seconds for seconds in found if seconds is not None]
    start = fmean(starts) if starts else 0.0
    each = []
    for row in rows:
        run = runs.get(row.name)
        left = rounds_of(row) - (run.done if run else 0)
        pace = fmean(paces[row.label]) if row.label in paces else overall
        each.append(start + max(0, left) * pace)
    return max(sum(each) / jobs, *each, 0.0)


def rounds_of(row: Row) -> int:
    """How many rounds a row is asked to train."""
    return int(fused_values(row.config, app_defaults())["num-server-rounds"])


def _paces(experiment: Experiment, runs: dict[str, Run]) -> dict[str, list[float]]:
    """The seconds of each round, by label."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in experiment.plan.rows:
        if row.name in runs and (seconds := _seconds_of(runs[row.name])):
            found[row.label] += seconds
    return found


def _seconds_of(run: Run) -> list[float]:
    return [line["seconds"] for line in run.rounds if isinstance(line.get("seconds"), int | float)]


def _start_of(experiment: Experiment, row: Row, run: Run) -> float | None:
    """Seconds of a run beside its rounds; None if it has not ended, or was resumed, which may have been days later."""
    record = run.record
    if record is None or run.status != "finished" or (run.folder / "resumes.jsonl").exists():
        return None
    try:
        begun = _first_start(experiment, row) or datetime.fromisoformat(record.started)
        whole = datetime.fromisoformat(record.ended) - begun
    except (ValueError, TypeError):
        return None
    return max(0.0, whole.total_seconds() - sum(_seconds_of(run)))


def _first_start(experiment: Experiment, row: Row) -> datetime | None:
    """When `flwr run` was called, as its log says, which is some time before the run begins; None if it does not."""
    try:
        with experiment.log(row).open(encoding="utf-8", errors="replace") as file:
            found = CALLED.search(file.read(500))
    except OSError:
        return None
    return datetime.fromisoformat(found[1]).astimezone() if found else None


def in_words(seconds: float) -> str:
    """A time, as exact as an estimate deserves."""
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
