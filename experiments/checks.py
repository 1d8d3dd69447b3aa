"""All that is wrong with a grid, said before its first row starts; and the plan that it is if nothing is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config.check import examine
from config.check_data import is_quick, problems_of_data
from config.errors import ConfigError
from config.federation import CLIENTS, RULES, problems_of_federation
from config.resolve import app_defaults
from config.rules import closest
from config.run_config import RunConfig
from data.errors import DataError
from data.text import shown
from experiments.errors import ExperimentError
from experiments.grid import MOST_ROWS, Combination, Grid, combinations, doubly_set
from experiments.grid_file import read_grid
from experiments.identity import Contents, mark_of, name_of
from experiments.plan import RUNS, Plan, Row
from messages.fingerprint import code_fingerprint
from methods import build_method

# Keys that the check of the data does not look at: rows that differ in these alone are looked at once.
NOT_OF_DATA = frozenset({"learning-rate", "strategy", "pretrained", "num-server-rounds"})


@dataclass(frozen=True)
class _Looked:
    """A combination whose config has been looked at."""

    of: Combination
    config: RunConfig
    problems: list[str]

    @property
    def clients(self) -> int:
        return clients_of(self.of.row)


def plan_of(path: Path, out: Path) -> Plan:
    """The plan that a grid file comes to.

    Args:
        path: The file.
        out: The experiment's folder, absolute; nothing is written.

    Raises:
        ExperimentError: All that is wrong, a sentence each.
    """
    grid, problems = read_grid(path)
    sound = not problems
    if grid.size > MOST_ROWS:
        raise ExperimentError(*problems)
    problems += [f"{path}: {problem}" for problem in doubly_set(grid)]
    looked = _look_at_rows(replace(grid, seeds=grid.seeds or (1,)), out)
    problems += [f"{path}: {problem}" for problem in _by_rows(looked)]
    if sound:
        problems += [f"{path}: {problem}" for problem in _problems_of_labels(grid, looked)]
    rows: list[Row] = []
    if not problems:
        code = code_fingerprint()
        rows, found = _marked(looked, code)
        problems += [f"{path}: {problem}" for problem in found]
    if problems:
        raise ExperimentError(*problems)
    return Plan(grid.title, tuple(rows), grid.baseline, code, grid.keep)


def clients_of(row: Row) -> int:
    """How many clients a row has, Flower's default included; its federation may be wrong."""
    given = row.federation.get(CLIENTS)
    return given if type(given) is int else int(RULES[CLIENTS][0])


def _look_at_rows(grid: Grid, out: Path) -> list[_Looked]:
    defaults = app_defaults()
    of_data: dict[object, list[str]] = {}
    of_classes: dict[object, list[str]] = {}
    looked = []
    for one in combinations(grid):
        config, problems = examine({**one.row.config, "output-dir": str(out / RUNS)}, defaults)
        problems += _problems_of_flower(one.row.federation)
        problems = problems or _problems_of_classes(config, of_classes)
        if not problems:
            problems = _problems_of_data(config, clients_of(one.row), of_data)
        labelled = replace(one.row, label=one.row.label or config.method)
        looked.append(_Looked(replace(one, row=labelled), config, problems))
    return looked


def _problems_of_flower(federation: Mapping[str, Any]) -> list[str]:
    return [text.replace("--federation-config", "[federation]") for text in problems_of_federation(dict(federation))]


def _problems_of_classes(config: RunConfig, known: dict[object, list[str]]) -> list[str]:
    """What is wrong with classes of the user's own and their parameters; each is imported and made once."""
    found = []
    if ":" in config.method:
        found += _said_by(
            lambda: build_method(config), ("method", config.method, config.method_args, config.augmentation), known
        )
    if ":" in config.strategy:
        from server_app.strategy import build_strategy  # Flower, which takes seconds

        found += _said_by(lambda: build_strategy(config), ("strategy", config.strategy, config.strategy_args), known)
    return found


def _said_by(build: Callable[[], object], key: object, known: dict[object, list[str]]) -> list[str]:
    if key not in known:
        try:
            build()
            known[key] = []
        except ConfigError as error:
            known[key] = [str(error)]
    return known[key]


def _problems_of_data(config: RunConfig, clients: int, known: dict[object, list[str]]) -> list[str]:
    """What the images refuse, where they can be read quickly; rows whose data are the same share what was found."""
    if config.num_clients not in (0, clients):
        return [f"run config: 'num-clients' is {config.num_clients}, but '{CLIENTS}' is {clients}; they must be equal."]
    key = (clients, *((key, value) for key, value in config.to_flat().items() if key not in NOT_OF_DATA))
    if key not in known:
        known[key] = problems_of_data(config, clients) if is_quick(config) else []
    return known[key]


def _by_rows(looked: Sequence[_Looked]) -> list[str]:
    """Each problem once, with the rows that have it unless all do."""
    having: dict[str, list[_Looked]] = {}
    for one in looked:
        for problem in dict.fromkeys(one.problems):
            having.setdefault(problem, []).append(one)
    return [f"{_which(rows, looked)}{problem}" for problem, rows in having.items()]


def _which(rows: Sequence[_Looked], among: Sequence[_Looked]) -> str:
    """Words for these rows: the value that they have in common and no others have, or the first and how many more."""
    if len(rows) == len(among):
        return ""
    for axis, name in rows[0].of.chosen.items():
        if [id(one) for one in among if one.of.chosen[axis] == name] == [id(one) for one in rows]:
            return f"{axis} {shown(name)}: "
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"row {said(rows[0].of.row)}{more}: "


def said(row: Row) -> str:
    """A row in a sentence."""
    names = ", ".join(shown(name) for name in (row.label, row.setting) if name)
    return f"{names}, seed {row.seed}"


def _problems_of_labels(grid: Grid, looked: Sequence[_Looked]) -> Iterable[str]:
    if not looked:
        yield "no row is left: [[exclude]] leaves out every combination."
        return
    labels = list(dict.fromkeys(one.of.row.label for one in looked))
    if grid.baseline and grid.baseline not in labels:
        yield (
            f"'baseline' is {shown(grid.baseline)}{closest(grid.baseline, labels)}; it must be one of"
            f" {', '.join(map(shown, labels))}."
        )
    first: dict[tuple[str, str, int], dict[str, str]] = {}
    for one in looked:
        row = one.of.row
        if first.setdefault((row.label, row.setting, row.seed), one.of.chosen) != one.of.chosen:
            yield f"two rows are both called {said(row)}; values need other names."


def _marked(looked: Sequence[_Looked], code: str) -> tuple[list[Row], list[str]]:
    """The rows with their marks and names, and what stands against them."""
    contents = Contents()
    rows, problems = list[Row](), list[str]()
    first: dict[str, Row] = {}
    for one in looked:
        try:
            row = replace(one.of.row, mark=mark_of(one.config, one.clients, contents, code))
        except DataError as error:
            problems.append(str(error))
            continue
        row = replace(row, name=name_of(row))
        rows.append(row)
        if (other := first.setdefault(row.mark, row)) is not row:
            problems.append(f"rows {said(other)} and {said(row)} are the same run; one of them must go or differ.")
    return rows, list(dict.fromkeys(problems))
