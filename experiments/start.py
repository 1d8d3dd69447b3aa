"""One start of an experiment: check, look at what is there, do what is left, and say how that went."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.cells import cell_len

from data.text import label, one_line
from experiments.app_copy import drop_outdated
from experiments.checks import clients_of, plan_of
from experiments.engine import drop_large, run_rows, side_by_side
from experiments.estimate import in_words, seconds_left
from experiments.folder import last_start, next_start, no_longer_there, write_down
from experiments.lock import locked
from experiments.plan import RUNS, Experiment, Row, save
from experiments.state import DOES, State, state_of

NAMED = 10  # of rows that a sentence lists
# What decides speed and memory.
PROBED = ("model", "stem", "pretrained", "method", "method-args", "image-size", "batch-size", "precision")
Say = Callable[[str], None]


def do(grid: Path, folder: Path, jobs: int | None, again: bool, say: Say) -> Experiment:
    """Do all rows that are not done; the experiment as it is then.

    Args:
        grid: The file.
        folder: The experiment's, absolute.
        jobs: How many rows at a time; None: as many as fit.
        again: See `experiments.folder.next_start`.
        say: Is told what happens.

    Raises:
        ExperimentError: All that is wrong with the grid or the folder, a sentence each; then nothing was started.
    """
    plan = plan_of(grid, folder)
    last_start(folder)  # refuses a folder of something else before a lock is written into it
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, say) as lock:
        last = last_start(folder)
        experiment = next_start(folder, plan, last, again)
        experiment.lock = lock
        write_down(experiment, grid)
        if gone := no_longer_there(last, experiment):
            say(f"No longer in the grid, but still in {folder / RUNS}: {_listed([row.name for row in gone])}.")
        rows = _not_done(experiment)
        say(_counted(len(experiment.plan.rows), len(experiment.plan.rows) - len(rows)))
        if rows:
            drop_outdated(folder)
            failures = experiment.failures | run_rows(experiment, rows, jobs)
            left = {row.name for row in rows if state_of(experiment, row) != "done"}
            experiment.failures = {name: reason for name, reason in failures.items() if name in left}
            save(experiment)
    return experiment


def dry(grid: Path, folder: Path, jobs: int | None, again: bool, as_json: bool) -> str:
    """What `do` would do, in a table or as JSON; nothing is written.

    Raises:
        ExperimentError: What `do` would raise before anything starts.
    """
    experiment = next_start(folder, plan_of(grid, folder), last_start(folder), again)
    states = {row.name: state_of(experiment, row) for row in experiment.plan.rows}
    rows = [row for row in experiment.plan.rows if states[row.name] != "done"]
    at_once = jobs or side_by_side(experiment.plan.rows)
    seconds = seconds_left(experiment, rows, at_once)
    if as_json:
        return _as_json(experiment, states, seconds)
    lines = [("label", "setting", "seed", "state", "would")]
    lines += [
        (label(row.label), label(row.setting), str(row.seed), states[row.name], DOES[states[row.name]])
        for row in experiment.plan.rows
    ]
    total = len(experiment.plan.rows)
    return "\n".join([*_aligned(lines), "", _counted(total, total - len(rows)), *_time(rows, seconds, at_once)])


def _not_done(experiment: Experiment) -> list[Row]:
    """The rows that are left. Those that are done lose what `keep` does not want: a killed start may have left it."""
    left = []
    for row in experiment.plan.rows:
        if state_of(experiment, row) != "done":
            left.append(row)
        elif experiment.plan.keep == "results":
            drop_large(experiment.run_dir(row))
    return left


def conclusion(experiment: Experiment) -> tuple[str, bool]:
    """How a start went, in lines; and whether all rows are done."""
    states = {row.name: state_of(experiment, row) for row in experiment.plan.rows}
    done = sum(state == "done" for state in states.values())
    lines = [f"{experiment.folder}: {_counted(len(states), done)}"]
    for row in experiment.plan.rows:
        if states[row.name] == "failed":
            lines.append(f"Failed: {row.name}: {one_line(experiment.failures[row.name])} ({experiment.log(row)})")
    rest = [name for name, state in states.items() if state in ("unfinished", "missing")]
    if rest:
        lines.append(f"Not done: {_listed(rest)}.")
    if done < len(states):
        lines.append("The same command goes on.")
    if done:
        lines.append(f"Table: python -m experiments table {shlex.quote(str(experiment.folder))}")
    return "\n".join(lines), done == len(states)


def _counted(total: int, done: int) -> str:
    return f"{total} row{'s' * (total != 1)}, {done} of them done."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells below each other, also where characters are two columns wide."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _time(rows: Sequence[Row], seconds: float | None, at_once: int) -> list[str]:
    if not rows:
        return []
    if seconds is not None:
        how = "one row after the other" if at_once == 1 else f"{at_once} rows at a time"
        return [f"About {in_words(seconds)} left, {how}."]
    return [
        "How long that takes will be known after the first rounds. What fits on this machine, and how fast it trains:",
        _probe(rows[0]),
    ]


def _probe(row: Row) -> str:
    values = {key: row.config[key] for key in PROBED if key in row.config}
    config = " ".join(f"{key}={value!r}" for key, value in values.items())
    quoted = shlex.quote(config) if set(config) & set('"$`\\!') else f'"{config}"'
    return f"python -m probe --clients {clients_of(row)}" + (f" -c {quoted}" if config else "")


def _as_json(experiment: Experiment, states: dict[str, State], seconds: float | None) -> str:
    rows = [
        {
            "name": row.name,
            "label": row.label,
            "setting": row.setting,
            "seed": row.seed,
            "mark": row.mark,
            "state": states[row.name],
            "would": DOES[states[row.name]],
        }
        for row in experiment.plan.rows
    ]
    whole = {
        "title": experiment.plan.title,
        "folder": str(experiment.folder),
        "rows": rows,
        "number": len(rows),
        "done": sum(row["state"] == "done" for row in rows),
        "seconds-left": None if seconds is None else round(seconds, 1),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)
