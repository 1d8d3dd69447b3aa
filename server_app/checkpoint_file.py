"""One file with everything a run needs to resume after a round: safetensors, plain data, one checksum over all of it.

Tensors ``model/<name>`` are the global model; ``strategy/<name>`` and ``method/<name>`` are what the strategy and the
method's server half keep between rounds. The metadata holds the round, the run config, who took part and when last, the
best round so far, and the SHA-256 of all that. What a method keeps about single images stays on the clients. No pickle
is ever loaded.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from server_app.files import replacing

FORMAT = "clothing1m-fl checkpoint 2"


class BadCheckpointError(ValueError):
    """A file is not a valid checkpoint; the message completes a sentence that starts with the file's name."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a round.

    Attributes:
        server_round: From 1.
        model: The global model.
        config: The resolved run config under its kebab-case keys.
        roll: Hash of the clients that take part, see `server_app.roll_call.roll_hash`.
        strategy: What the strategy keeps between rounds.
        best: Round and clean-validation accuracy of the best model so far; None without validation.
        method: What the method's server half keeps between rounds.
        visits: By partition, the round of its last good reply.
        run: The run's identity, under which clients keep their state.
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

    def arrays(self) -> ArrayRecord:
        """The global model as Flower carries it."""
        return ArrayRecord({name: Array(value) for name, value in self.model.items()})


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a reader of `path` always finds a complete one, even after a power failure."""
    tensors = {f"model/{name}": value for name, value in checkpoint.model.items()}
    tensors |= {f"strategy/{name}": value for name, value in checkpoint.strategy.items()}
    tensors |= {f"method/{name}": value for name, value in checkpoint.method.items()}
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    facts = {
        "round": checkpoint.server_round,
        "config": checkpoint.config,
        "roll": checkpoint.roll,
        "best": checkpoint.best,
        "visits": sorted(checkpoint.visits.items()),
        "run": checkpoint.run,
        "order": list(tensors),  # the format does not keep it
    }
    text = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": text, "sha256": _checksum(text, tensors)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
        temporary.chmod(0o644)  # safetensors makes files private
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        BadCheckpointError: It is missing, truncated, modified, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except FileNotFoundError:
        raise BadCheckpointError("does not exist") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BadCheckpointError(f"cannot be read ({str(error).splitlines()[0]})") from None
    if metadata.get("format") != FORMAT:
        raise BadCheckpointError("is not a checkpoint of this version")
    try:
        facts = json.loads(metadata["facts"])
        if metadata["sha256"] != _checksum(metadata["facts"], {name: tensors[name] for name in facts["order"]}):
            raise BadCheckpointError("has changed since it was written: its checksum does not match")
        best = facts["best"]
        of = {
            kind: {name[len(kind) :]: tensors[name] for name in facts["order"] if name.startswith(kind)}
            for kind in ("model/", "strategy/", "method/")
        }
        return Checkpoint(
            int(facts["round"]),
            of["model/"],
            facts["config"],
            facts["roll"],
            of["strategy/"],
            None if best is None else (int(best[0]), float(best[1])),
            of["method/"],
            {int(partition): int(last) for partition, last in facts["visits"]},
            str(facts["run"]),
        )
    except (KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise BadCheckpointError(f"is incomplete ({error})") from None


def _checksum(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    seen = hashlib.sha256(text.encode())
    for name, value in tensors.items():
        seen.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        seen.update(np.ascontiguousarray(value).data)
    return seen.hexdigest()
