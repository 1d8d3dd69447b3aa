"""What a page says in words: its summary, settings that differ, machines and versions, and how to repeat a run."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from config.measure import CLEAN_TEST
from config.run_config import RunConfig, Value
from config.stems import usual_stem
from runs.cells import measured_on, value
from runs.notes import named
from runs.printing import counted
from runs.report.figures import is_number
from runs.report.gather import differing_keys
from runs.run import PLACES, Run, comparable_config
from runs.scores import DEFAULT, WITHOUT
from runs.table import Line, Section, Table

FEW = 6  # labels that a sentence names


@dataclass(frozen=True)
class Facts:
    """One run in words.

    Attributes:
        name: Of its folder.
        seed: As its config has it.
        status: One of `runs.run.Status`.
        rounds: ``6 of 6 rounds``.
        when: When it began, and how long its rounds took.
        reason: Why it ended early; empty if it did not.
        command: Repeats it; empty if its config is missing.
    """

    name: str
    seed: str
    status: str
    rounds: str
    when: str
    reason: str
    command: str


def of_run(run: Run) -> Facts:
    seconds = sum(float(entry["seconds"]) for entry in run.rounds if is_number(entry.get("seconds")))
    started = _day(run.record.started) if run.record else ""
    when = ", ".join(part for part in (started, _duration(seconds) if run.rounds else "") if part)
    rounds = f"{run.done:,} of {run.asked:,} rounds"
    seed = str(run.config.get("seed", "unknown"))
    return Facts(run.name, seed, run.status, rounds, when, run.reason, command_of(run.config))


def command_of(config: Mapping[str, Value]) -> str:
    """The line that repeats a run: all settings that are not the defaults, and as many clients."""
    if not config:
        return ""
    usual = {**RunConfig().to_flat(), "stem": usual_stem(config)}
    changed = {key: value for key, value in config.items() if key not in PLACES and value != usual.get(key)}
    pairs = " ".join(f"{key}={_toml(value)}" for key, value in changed.items())
    federation = f"num-supernodes={config.get('num-clients', 0)} client-resources-num-cpus=1"
    line = f"flwr run . --stream --federation-config {_for_the_shell(federation)}"
    return f"{line} -c {_for_the_shell(pairs)}" if pairs else line


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        plain = "'" not in value and value.isprintable()
        return f"'{value}'" if plain else json.dumps(value, ensure_ascii=False)
    return repr(value)


def _for_the_shell(text: str) -> str:
    """In double quotes, as in the documentation, where that is safe."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def summary(sections: Sequence[Section], table: Table) -> list[str]:
    """Sentences for somebody who has never seen these runs."""
    runs = [run for section in sections for line in section.lines for run in line.runs]
    labels = dict.fromkeys(line.label for section in sections for line in section.lines)
    rounds = sorted({run.asked for run in runs})
    seeds = {str(run.config.get("seed")) for run in runs}
    what = _and(list(labels)) if len(labels) <= FEW else f"{len(labels)} kinds"
    said = [
        f"{counted(len(runs), 'run')} of {_rounds(rounds)}: {what}, in {counted(len(sections), 'setting')},"
        f" with {counted(len(seeds), 'seed')}."
    ]
    states = [run.status for run in runs]
    if unfinished := [f"{states.count(one)} {one}" for one in dict.fromkeys(states) if one != "finished"]:
        said.append(f"Not finished: {', '.join(unfinished)}.")
    return said + [one for one in (_highest(table),) if one]


def _highest(table: Table) -> str:
    """Which lines have the highest first column, in settings that compare several; those that may not be do not win."""
    column = next((one for one in table.columns if not one.picked_on_test and one.key not in WITHOUT), None)
    compared = [
        [line for line in section.lines if column and column.key in line.stats and not line.note]
        for section in table.sections
    ]
    compared = [lines for lines in compared if len(lines) > 1]
    if column is None or not compared:
        return ""
    on = measured_on(table)
    what = f"“{column.title}”"
    if column.key in DEFAULT and on != [CLEAN_TEST] and len(on) == 1:
        what = f"{what} on {on[0].name}"
    best = [max(lines, key=lambda line: line.stats[column.key].mean) for lines in compared]
    if len(best) == 1:
        numbers = f"{value(best[0], column)} {column.unit}".rstrip()
        return f"Highest mean of {what}: {named(best[0].label)}, {numbers}."
    wins = Counter(named(line.label) for line in best)
    return (
        f"Highest mean of {what}: "
        + ", ".join(f"{label} in {count} of {len(best)} settings" for label, count in wins.most_common())
        + "."
    )


@dataclass(frozen=True)
class Differences:
    """Settings of lines.

    Attributes:
        keys: That differ between any two runs, other than the seed.
        rows: For each setting its title, and for each of its lines label and values.
        same: Keys that all runs share and that are not the defaults, with their values.
    """

    keys: list[str]
    rows: list[tuple[str, list[tuple[str, list[str]]]]]
    same: list[tuple[str, str]]


def differences(sections: Sequence[Section]) -> Differences:
    configs = {run.folder: _settings(run) for section in sections for line in section.lines for run in line.runs}
    keys = differing_keys(list(configs.values()))
    rows = [
        (section.title, [(line.label, [_values(line, key) for key in keys]) for line in section.lines])
        for section in sections
    ]
    usual, first = RunConfig().to_flat(), next(iter(configs.values()), {})
    same = [(key, shown(value)) for key, value in first.items() if key not in keys and value != usual.get(key)]
    return Differences(keys, rows, same)


def _settings(run: Run) -> dict[str, Value]:
    return {key: value for key, value in comparable_config(run).items() if key != "seed"}


def _values(line: Line, key: str) -> str:
    """What the runs of a line have, each once."""
    return " / ".join(dict.fromkeys(shown(run.config[key]) if key in run.config else "unknown" for run in line.runs))


def shown(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value != "" else "(empty)"


@dataclass(frozen=True)
class Environment:
    """Where runs ran, and with what.

    Attributes:
        runs: How many.
        facts: Names and values, in order.
    """

    runs: int
    facts: tuple[tuple[str, str], ...]


def environments(sections: Sequence[Section]) -> list[Environment]:
    """Each different one once, the most frequent first."""
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for run in (run for section in sections for line in section.lines for run in line.runs):
        facts = _environment(run)
        found[facts] = found.get(facts, 0) + 1
    return [Environment(count, facts) for facts, count in sorted(found.items(), key=lambda one: -one[1]) if facts]


def _environment(run: Run) -> tuple[tuple[str, str], ...]:
    facts: dict[str, str] = {"code": run.code} if run.code else {}
    if run.record:
        facts |= {name: text for name, text in run.record.machine.items() if text}
        facts |= run.record.versions
    return tuple(facts.items())


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "nothing"


def _rounds(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,} to {counted(numbers[-1], 'round')}" if len(numbers) > 1 else counted(sum(numbers), "round")


def _day(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return ""


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
