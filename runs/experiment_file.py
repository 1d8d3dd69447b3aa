"""An experiment's folder, as tables and pages of runs read it: `experiment.json` names its rows and their labels.

`experiments` writes the file and is above this package, which therefore reads the few facts that it needs itself.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.entries import Entry
from runs.errors import RunsError
from runs.run import EXPERIMENT, ROWS, is_run, read_run


@dataclass(frozen=True)
class ExperimentRuns:
    """What an experiment has so far.

    Attributes:
        title: For people.
        baseline: Label of the line that others are compared with; empty for none.
        entries: Of the rows that have begun, in the order of the plan.
        missing: Names of the rows that have not.
        failures: By row name, why it failed last time.
    """

    title: str
    baseline: str
    entries: tuple[Entry, ...]
    missing: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()


def read_experiment(folder: Path) -> ExperimentRuns:
    """Read an experiment's folder and its runs.

    Raises:
        RunsError: Its file is missing or damaged.
    """
    path = folder / EXPERIMENT
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        title, baseline = _text(values["title"]), _text(values.get("baseline", ""))
        rows = [(_name(row["name"]), _about(row)) for row in values["rows"]]
        failures = tuple(sorted((_text(name), _text(why)) for name, why in values.get("failures", {}).items()))
    except OSError as error:
        raise RunsError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise RunsError(f"{path} is damaged; it must be a file of `python -m experiments run`.") from None
    begun = {name: folder / ROWS / name for name, _ in rows if is_run(folder / ROWS / name)}
    entries = tuple(Entry(run=read_run(begun[name]), **about) for name, about in rows if name in begun)
    return ExperimentRuns(title, baseline, entries, tuple(name for name, _ in rows if name not in begun), failures)


def _about(row: Any) -> dict[str, Any]:
    """What an `Entry` has besides the run."""
    reference, trials = row.get("reference", False), row.get("trials")
    if type(reference) is not bool or not (trials is None or type(trials) is int):
        raise ValueError
    return {
        "label": _text(row["label"]), "setting": _text(row.get("setting", "")),
        "reference": reference, "trials": trials,
    }  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return str(value)


def _name(value: Any) -> str:
    """A plain name: nothing outside the experiment's folder is read."""
    name = _text(value)
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError
    return name
