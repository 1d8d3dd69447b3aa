"""Reads a grid file. docs/experiments.md explains its keys."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from config.federation import RULES
from config.hints import hint_about_key
from config.parameters import fits
from config.rules import MOST_SEED, Rule, at_least, closest, one_of, text, true_or_false
from config.run_config import RunConfig, no_such_key
from data.text import one_line, shown
from experiments.errors import ExperimentError
from experiments.grid import MOST_ROWS, Axis, Choice, Grid

LONGEST_NAME = 80  # characters of a value's name or a title
NAME = Rule(
    f"a text that can be shown on one line, of 1 to {LONGEST_NAME} characters",
    lambda value: 0 < len(value) <= LONGEST_NAME and value == value.strip() and value.isprintable(),
)
TEXTS: dict[str, Rule] = {"title": NAME, "baseline": text(""), "keep": one_of("all", "results")}
TABLES = ("base", "axes", "federation")
KNOWN = (*TEXTS, "seeds", *TABLES, "exclude")
RESERVED: dict[str, tuple[Any, Rule]] = {
    "name": ("", NAME),
    "trials": (1, at_least(1)),
    "reference": (False, true_or_false()),
}
KEYS = tuple(RunConfig().to_flat())
NOT_HERE = {
    "seed": "the grid's `seeds` set it",
    "run-name": "each row gets a name of its own",
    "output-dir": "rows are written below --out",
    "resume": "rows resume by themselves",
}


def read_grid(path: Path) -> tuple[Grid, list[str]]:
    """What a file says, without what cannot be used, and a sentence for each thing that is wrong with its form.

    Raises:
        ExperimentError: It cannot be read, or is no TOML.
    """
    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read: {error.strerror}.") from None
    if content is None:
        raise ExperimentError(f"{path} is no file; it must be a grid in TOML, see docs/experiments.md.")
    try:
        values = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ExperimentError(f"{path} is no text in UTF-8; it must be a grid in TOML.") from None
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{path} is no TOML: {one_line(str(error))}.") from None
    reader = _Reader()
    grid = reader.grid(values, path.stem)
    return grid, [f"{path}: {problem}" for problem in reader.problems]


class _Reader:
    """Reads tables and keeps what is wrong with them in `problems`."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def grid(self, values: Mapping[str, Any], title: str) -> Grid:
        for key in [key for key in values if key not in KNOWN]:
            known = ", ".join(KNOWN)
            self._refuse(f"there is no key {shown(key)}{closest(key, KNOWN)}; known keys are {known}.")
        for key in [key for key in TEXTS if key in values]:
            self._check(f"'{key}'", values[key], "", TEXTS[key])
        tables = {name: self._table(f"[{name}]", values.get(name, {})) for name in TABLES}
        axes = [self._axis(name, listed) for name, listed in tables["axes"].items()]
        grid = Grid(
            title=str(values.get("title", title)),
            baseline=str(values.get("baseline", "")),
            seeds=self._seeds(values.get("seeds")),
            keep=str(values.get("keep", "all")),
            base=self._keys("[base]", tables["base"]),
            axes=tuple(axis for axis in axes if axis.choices),
            federation=tables["federation"],
            exclude=(),
        )
        if grid.size > MOST_ROWS:
            self._refuse(f"'axes' and 'seeds' make {grid.size:,} rows; it must be at most {MOST_ROWS:,}.")
        return replace(grid, exclude=tuple(self._left_out(values.get("exclude", []), grid.axes)))

    def _refuse(self, problem: str) -> None:
        self.problems.append(problem)

    def _check(self, what: str, value: Any, default: Any, rule: Rule) -> bool:
        """Whether a value has the type of the default and fits the rule."""
        good = fits(value, default, rule)
        if not good:
            self._refuse(f"{what} is {shown(value)}; it must be {rule.allowed}{closest(value, rule.names)}.")
        return good

    def _table(self, what: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._refuse(f"{what} is {shown(value)}; it must be a table of keys.")
        return {}

    def _seeds(self, value: Any) -> tuple[int, ...]:
        what = "'seeds'"
        if not isinstance(value, list) or not value:
            given = "missing" if value is None else shown(value)
            self._refuse(f"{what} is {given}; it must be a list of whole numbers, such as [1, 2, 3].")
            return ()
        rule = at_least(0, MOST_SEED)
        good = [seed for seed in value if self._check(f"a seed in {what}", seed, 1, rule)]
        self._refuse_repeated(what, good)
        return tuple(dict.fromkeys(good))

    def _refuse_repeated(self, what: str, names: list[Any]) -> None:
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self._refuse(f"{what} has {shown(name)} twice; each must be there once.")

    def _keys(self, what: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """Run-config keys; `config.check` looks at those that are left, and at their values."""
        kept = {}
        for key, value in table.items():
            if key in NOT_HERE:
                self._refuse(f"{what} sets '{key}', but {NOT_HERE[key]}.")
            elif key in RULES:
                where = "[federation]" if what == "[base]" else f"federation = {{{key} = {shown(value)}}}"
                self._refuse(f"{what} sets '{key}', which is a key of Flower's; it belongs into {where}.")
            else:
                kept[key] = value
        return kept

    def _axis(self, name: str, listed: Any) -> Axis:
        what = f"[axes] {one_line(name, LONGEST_NAME)}"
        self._check(f"the name of an axis, {shown(name)},", name, "", NAME)
        if not isinstance(listed, list) or not listed:
            self._refuse(f"{what} is {shown(listed)}; it must be a list of at least one value.")
            return Axis(name, ())
        if any(not isinstance(value, dict) for value in listed) and not self._may_be_plain(what, name):
            listed = [value for value in listed if isinstance(value, dict)]
        choices = [self._choice(f"{what}, value {number}", name, value) for number, value in enumerate(listed, 1)]
        good = [choice for choice in choices if choice]
        self._refuse_repeated(what, [choice.name for choice in good])
        return Axis(name, tuple({choice.name: choice for choice in good}.values()))

    def _may_be_plain(self, what: str, key: str) -> bool:
        """Whether an axis is named like a key, which is what values that are no tables need."""
        if key in NOT_HERE:
            self._refuse(f"{what} sets '{key}', but {NOT_HERE[key]}.")
        elif key in RULES:
            self._refuse(f"{what} is a key of Flower's; its values must be tables: {{federation = {{{key} = ...}}}}.")
        elif key not in KEYS:
            hint = hint_about_key(key) or no_such_key(key, KEYS)
            self._refuse(f"{what} has plain values, so it must be named like a key, or they must be tables: {hint}")
        else:
            return True
        return False

    def _choice(self, what: str, axis: str, value: Any) -> Choice | None:
        if isinstance(value, dict):
            return self._choice_of_keys(what, value)
        if not isinstance(value, bool | int | float | str):
            self._refuse(f"{what} is {shown(value)}; it must be a number, true, false, a text, or a table of keys.")
            return None
        name = name_of(value)
        return Choice(name, {axis: value}) if self._is_name(what, name) else None

    def _choice_of_keys(self, what: str, table: Mapping[str, Any]) -> Choice | None:
        known = {key: table[key] for key in RESERVED if key in table}
        wrong = [key for key, one in known.items() if not self._check(f"{what}: '{key}'", one, *RESERVED[key])]
        of_flower = self._table(f"{what}: 'federation'", table.get("federation", {}))
        rest = {key: one for key, one in table.items() if key not in (*RESERVED, "federation")}
        config = self._keys(what, rest)
        name = known.get("name", ", ".join(map(name_of, (*rest.values(), *of_flower.values()))))
        if wrong or not self._is_name(what, name):
            return None
        return Choice(name, config, of_flower, known.get("reference", False), known.get("trials"))

    def _is_name(self, what: str, name: str) -> bool:
        good = NAME.holds(name)
        if not good:
            self._refuse(f"{what} needs a short name of its own: a table with `name`, {NAME.allowed}.")
        return good

    def _left_out(self, value: Any, axes: Iterable[Axis]) -> list[dict[str, str]]:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            self._refuse("'exclude' must be tables, each below a line [[exclude]].")
            return []
        names = {axis.name: [choice.name for choice in axis.choices] for axis in axes}
        read = [{axis: name_of(name) for axis, name in one.items()} for one in value]
        return [one for one in read if self._is_combination(one, names)]

    def _is_combination(self, table: Mapping[str, str], names: Mapping[str, list[str]]) -> bool:
        before = len(self.problems)
        if not table:
            self._refuse("an [[exclude]] is empty; it must name an axis and one of its values.")
        for axis, value in table.items():
            if axis not in names:
                known = ", ".join(names) or "none"
                self._refuse(f"[[exclude]]: there is no axis {shown(axis)}{closest(axis, names)}; known are {known}.")
            elif value not in names[axis]:
                known = ", ".join(names[axis])
                self._refuse(
                    f"[[exclude]]: {one_line(axis)} has no value named {shown(value)}{closest(value, names[axis])};"
                    f" known are {known}."
                )
        return before == len(self.problems)


def name_of(value: Any) -> str:
    """What a value is called that has no name of its own."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else shown(value)
