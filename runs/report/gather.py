"""What a page is about: runs and experiments that the command line names, as entries of one table."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.user_cache import below_home
from runs.entries import Entry
from runs.errors import RunsError
from runs.experiment_file import ExperimentRuns, read_experiment
from runs.places import run_named
from runs.printing import counted
from runs.protocol import OF_A_SETTING
from runs.run import EXPERIMENT, Run, comparable_config


@dataclass(frozen=True)
class Material:
    """All that a page shows.

    Attributes:
        title: For people.
        entries: In order.
        baseline: A label; empty for none.
        problems: Sentences about what is not there, or is damaged.
    """

    title: str
    entries: tuple[Entry, ...]
    baseline: str = ""
    problems: tuple[str, ...] = ()


def gather(named: Sequence[str]) -> Material:
    """Read what is named.

    Args:
        named: Folders of runs and of experiments, or names of runs in the default folder. Runs that are named
            themselves become lines by the settings that differ among them.

    Raises:
        RunsError: One is neither, or nothing is there yet.
    """
    experiments, runs = [], []
    for name in dict.fromkeys(named):
        folder = below_home(name)
        if name and os.path.isfile(folder / EXPERIMENT):  # noqa: PTH113  never raises
            experiments.append(read_experiment(folder))
        else:
            runs.append(run_named(name))
    entries = (*(entry for one in experiments for entry in one.entries), *entries_of(runs))
    if not entries:
        raise RunsError("none of the rows has begun, so there is nothing to show yet.")
    titles = [one.title for one in experiments if one.title]
    title = ", ".join(titles) or (runs[0].name if len(runs) == 1 else f"{len(entries)} runs")
    labels = {entry.label for entry in entries}
    baseline = next((one.baseline for one in experiments if one.baseline in labels), "")
    problems = [problem for one in experiments for problem in _problems(one)]
    problems += [f"{entry.run.name}: {problem}" for entry in entries for problem in entry.run.problems]
    return Material(title, entries, baseline, tuple(problems))


def _problems(experiment: ExperimentRuns) -> Iterator[str]:
    if count := len(experiment.missing):
        whose = experiment.title or "the experiment"
        yield f"{counted(count, 'row')} of {whose} {'has' if count == 1 else 'have'} not begun."
    for name, why in experiment.failures:
        yield f"{name} has failed: {why}"


def entries_of(runs: Sequence[Run]) -> list[Entry]:
    """Runs as entries; a label is the method, and each other key that differs and is no setting."""
    configs = [
        {key: value for key, value in comparable_config(run).items() if key not in OF_A_SETTING | {"seed"}}
        for run in runs
    ]
    differing = differing_keys(configs)
    return [Entry(_label(config, differing), run) for run, config in zip(runs, configs, strict=True)]


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all of these, in the order in which they first come."""
    keys = list(dict.fromkeys(key for config in configs for key in config))
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]


def _label(config: Mapping[str, Any], differing: Sequence[str]) -> str:
    others = [f"{key}={config.get(key, '?')}" for key in differing if key != "method"]
    return ", ".join([str(config.get("method", "unknown method")), *others])
