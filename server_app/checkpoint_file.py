"""One file with everything a run needs to resume after a round: safetensors, plain data, one checksum over all of it.

Tensors ``model/<name>`` are what travels of the global model; ``strategy/<name>`` and ``method/<name>`` are what the
strategy and the method's server half keep between rounds. The facts beside them hold the round, the run config, who
took part and when last, which lists the server evaluates on, the classes, and the best round so far. What a method
keeps about single images stays on the clients. No pickle is ever loaded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from config.recorded import as_recorded
from data.sealed import DamagedError, read_sealed, write_sealed

FORMAT = "clothing1m-fl checkpoint 3"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a round.

    Attributes:
        server_round: From 1.
        model: The global model.
        config: The resolved run config under its kebab-case keys.
        roll: The clients that take part, see `server_app.members.roll_of`.
        strategy: What the strategy keeps between rounds.
        best: Round and score of the best model so far (`server_app.picking`); None as long as there is none.
        method: What the method's server half keeps between rounds.
        visits: By partition, the round of its last good reply.
        run: The run's identity, under which clients keep their state.
        lists: Digests of what the server reads of its data, by name; empty in files of earlier versions.
        frozen: Hash of the network's weights that do not travel; empty if all do.
        class_names: In the order of their labels; empty in files of earlier versions.
    """

    server_round: int
    model: dict[str, np.ndarray]
    config: dict[str, Any]
    roll: str
    strategy: dict[str, np.ndarray] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    method: dict[str, np.ndarray] = field(default_factory=dict)
    visits: dict[int, int] = field(default_factory=dict)
    run: str = ""
    lists: dict[str, str] = field(default_factory=dict)
    frozen: str = ""
    class_names: tuple[str, ...] = ()

    def arrays(self) -> ArrayRecord:
        """The global model as Flower carries it."""
        return ArrayRecord({name: Array(value) for name, value in self.model.items()})


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a reader of `path` always finds a complete one, even after a power failure."""
    arrays = {f"model/{name}": value for name, value in checkpoint.model.items()}
    arrays |= {f"strategy/{name}": value for name, value in checkpoint.strategy.items()}
    arrays |= {f"method/{name}": value for name, value in checkpoint.method.items()}
    facts = {
        "round": checkpoint.server_round,
        "config": checkpoint.config,
        "roll": checkpoint.roll,
        "best": checkpoint.best,
        "visits": sorted(checkpoint.visits.items()),
        "run": checkpoint.run,
        "lists": checkpoint.lists,
        "frozen": checkpoint.frozen,
        "class-names": list(checkpoint.class_names),
    }
    write_sealed(path, FORMAT, facts, arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DamagedError: It is missing, truncated, modified, or not a checkpoint.
    """
    facts, arrays = read_sealed(path, FORMAT)
    facts = {"lists": {}, "frozen": "", "class-names": [], **facts}
    for name, holds in FACTS.items():
        if name not in facts or not holds(facts[name]):
            raise DamagedError(f"is incomplete: its '{name}' is {str(facts.get(name, 'missing'))[:40]!r}")
    of = {
        kind: {name[len(kind) :]: value for name, value in arrays.items() if name.startswith(kind)}
        for kind in ("model/", "strategy/", "method/")
    }
    return Checkpoint(
        facts["round"],
        of["model/"],
        as_recorded(facts["config"]),
        facts["roll"],
        of["strategy/"],
        None if facts["best"] is None else (facts["best"][0], float(facts["best"][1])),
        of["method/"],
        dict(facts["visits"]),
        facts["run"],
        facts["lists"],
        facts["frozen"],
        tuple(facts["class-names"]),
    )


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _maps(value: Any, *types: type) -> bool:
    return isinstance(value, dict) and all(type(entry) in types for entry in value.values())


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


# What each fact must be: a checksum fits whatever was written, by whatever wrote it.
FACTS: dict[str, Callable[[Any], bool]] = {
    "round": lambda value: _is_count(value, 1),
    "config": lambda value: _maps(value, bool, int, float, str),
    "roll": lambda value: isinstance(value, str),
    "best": lambda value: (
        value is None
        or (_is_pair(value) and _is_count(value[0], 1) and type(value[1]) in (int, float) and 0 <= value[1] <= 1)
    ),
    "visits": lambda value: (
        isinstance(value, list) and all(_is_pair(pair) and all(map(_is_count, pair)) for pair in value)
    ),
    "run": lambda value: isinstance(value, str) and re.fullmatch(r"[\w-]*", value) is not None,  # it names a folder
    "lists": lambda value: _maps(value, str),
    "frozen": lambda value: isinstance(value, str),
    "class-names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
}
