"""A method whose server half sends each client the last model of the next one, and runs of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from data.sealed import read_sealed
from learning.method import Batch, Method, Visit
from learning.server_half import ServerHalf
from server_app import client_models
from server_app.files import CLIENT_MODELS
from tests.fakes import run_in_process

CLIENTS = 4
TINY: dict[str, Any] = {"method": "ce", "model": "cnn", "image_size": 16, "num_server_rounds": 5, "clients": CLIENTS}


# A method that needs no more than its server half: the loss of each client depends on the model of the next one.


@dataclass(frozen=True)
class Sharing(Method):
    shares_models = True

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        scale = sum(float(value.float().abs().mean()) for one in visit.models.values() for value in one.values())
        return cross_entropy(batch.logits, batch.labels) * (1 + scale / 1000)

    def on_server(self) -> ServerHalf:
        return SharingOnServer()


class SharingOnServer(ServerHalf):
    reads_data = False
    keeps_models = True

    def __init__(self) -> None:
        self._heard: set[int] = set()

    def heard(self, server_round: int, replies: Mapping[int, Any]) -> None:
        self._heard |= set(replies)

    def tell_models(self, partition: int) -> dict[str, int]:
        following = (partition + 1) % CLIENTS
        return {"the next": following} if following in self._heard else {}

    def state(self) -> dict[str, np.ndarray]:
        return {"heard": np.array(sorted(self._heard), dtype=np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._heard = set(state["heard"].tolist())


def run(out: Path, sample: Path, **changes: Any) -> Path:
    return run_in_process(out, data_dir=str(sample), **{**TINY, **changes})


def files_of(run_dir: Path) -> dict[str, str]:
    """By name, a hash of the arrays in each."""
    found = {}
    for path in sorted((run_dir / CLIENT_MODELS).iterdir()):
        _, arrays = read_sealed(path, client_models.FORMAT)
        found[path.name] = hashlib.sha256(b"".join(value.tobytes() for value in arrays.values())).hexdigest()
    return found


def named(visits: Mapping[int, int]) -> set[str]:
    return {f"client-{client:05}-round-{server_round:05}.safetensors" for client, server_round in visits.items()}
