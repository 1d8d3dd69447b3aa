"""A grid, read: what is combined with what, and the rows that this comes to. `experiments.grid_file` reads one."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from config.federation import CLIENTS
from config.run_config import Value
from data.text import shown
from experiments.plan import Row
from runs.protocol import OF_A_SETTING

MOST_ROWS = 10_000


@dataclass(frozen=True)
class Choice:
    """A value of an axis.

    Attributes:
        name: As it appears in tables and in `exclude`.
        config: Run-config keys that it sets.
        federation: Flower's keys that it sets.
        reference: See `runs.entries.Entry`.
        trials: See `runs.entries.Entry`.
    """

    name: str
    config: dict[str, Value]
    federation: dict[str, Value] = field(default_factory=dict)
    reference: bool = False
    trials: int | None = None

    @property
    def keys(self) -> set[str]:
        """All that it sets and that no other axis may set as well."""
        return {*self.config, *self.federation} | ({"trials"} if self.trials is not None else set())


@dataclass(frozen=True)
class Axis:
    """What is varied."""

    name: str
    choices: tuple[Choice, ...]

    @property
    def is_setting(self) -> bool:
        """Whether it changes nothing but data and partition."""
        return all(one.config.keys() <= OF_A_SETTING and one.federation.keys() <= {CLIENTS} for one in self.choices)


@dataclass(frozen=True)
class Grid:
    """What a grid file says.

    Attributes:
        title: For people.
        baseline: A label; empty for none.
        seeds: Without repetitions.
        keep: See `experiments.plan.Plan`.
        base: Run-config keys of all rows.
        axes: In the file's order, each with at least one value.
        federation: Flower's keys of all rows.
        exclude: Combinations that are left out: names of values by axis.
    """

    title: str
    baseline: str
    seeds: tuple[int, ...]
    keep: str
    base: dict[str, Value]
    axes: tuple[Axis, ...]
    federation: dict[str, Value]
    exclude: tuple[dict[str, str], ...]

    @property
    def size(self) -> int:
        """How many rows there are before any is left out."""
        return len(self.seeds) * math.prod(len(axis.choices) for axis in self.axes)


@dataclass(frozen=True)
class Combination:
    """A row that has neither a name nor a mark yet, nor a label where no axis gives one.

    Attributes:
        row: It.
        chosen: The value's name by axis.
    """

    row: Row
    chosen: dict[str, str]


def combinations(grid: Grid) -> Iterator[Combination]:
    """All that are not left out, seed by seed, in the order of the file."""
    for seed in grid.seeds:
        for choices in itertools.product(*(axis.choices for axis in grid.axes)):
            chosen = {axis.name: choice.name for axis, choice in zip(grid.axes, choices, strict=True)}
            if not any(left_out.items() <= chosen.items() for left_out in grid.exclude):
                yield Combination(_row(grid, choices, seed), chosen)


def doubly_set(grid: Grid) -> list[str]:
    """A sentence for each key that two axes set in one row."""
    found: dict[tuple[str, str, str], str] = {}
    by_name = {axis.name: {choice.name: choice for choice in axis.choices} for axis in grid.axes}
    for one in combinations(grid):
        for left, right in itertools.combinations(one.chosen.items(), 2):
            for key in sorted(by_name[left[0]][left[1]].keys & by_name[right[0]][right[1]].keys):
                found.setdefault((left[0], right[0], key), f"{_said(left)} and {_said(right)}")
    return [
        f"[axes]: {pair} both set '{key}'; it must be one of them, or their combination must be left out with"
        " [[exclude]]."
        for (_, _, key), pair in found.items()
    ]


def _row(grid: Grid, choices: Sequence[Choice], seed: int) -> Row:
    """Later values win over `base`; two axes never set one key, see `doubly_set`."""
    config, federation = {**grid.base, "seed": seed}, dict(grid.federation)
    for choice in choices:
        config |= choice.config
        federation |= choice.federation
    pairs = list(zip(grid.axes, choices, strict=True))
    return Row(
        name="",
        label=_joined(choice for axis, choice in pairs if not axis.is_setting),
        setting=_joined(choice for axis, choice in pairs if axis.is_setting),
        seed=seed,
        config=config,
        federation=federation,
        mark="",
        reference=any(choice.reference for choice in choices),
        trials=next((choice.trials for choice in choices if choice.trials is not None), None),
    )


def _joined(choices: Iterable[Choice]) -> str:
    return ", ".join(choice.name for choice in choices)


def _said(pair: tuple[str, str]) -> str:
    return f"{pair[0]} {shown(pair[1])}"
