"""How far each row is: what its folder says, whoever wrote it and however that ended."""

from typing import Literal

from config.errors import ConfigError
from experiments.plan import Experiment, Row
from runs.errors import RunsError
from runs.run import Run, read_run

State = Literal["done", "unfinished", "failed", "missing"]
# What a start does with a row.
DOES: dict[State, str] = {"done": "keep", "unfinished": "resume", "failed": "try again", "missing": "start"}


def state_of(experiment: Experiment, row: Row) -> State:
    """Done: the run ended by itself, after all its rounds or by a rule of its config.

    Failed: it ended otherwise, and the last start wrote down why. It may still have rounds, which are resumed.
    """
    run = run_of(experiment, row)
    if run and run.status == "finished":
        return "done"
    if row.name in experiment.failures:
        return "failed"
    return "unfinished" if experiment.run_dir(row).exists() else "missing"


def run_of(experiment: Experiment, row: Row) -> Run | None:
    """What a row left behind; None if nothing of it can be read."""
    try:
        return read_run(experiment.run_dir(row))
    except (RunsError, ConfigError, OSError):
        return None
