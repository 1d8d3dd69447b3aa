"""What a method remembers of a client's images between two visits, on that client's own disk.

It never travels: label estimates of single images are what federated learning keeps at home. One file a visit, named by
its round. The server says with each message in which round this client's last good reply was, and the visit goes on
from the state of exactly that round: what a visit left that did not count, because the run was killed or the reply was
lost, is not used. A run that is resumed therefore goes on like one that was never stopped.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from config.run_config import ConfigError

FORMAT = "clothing1m-fl client state 1"
DEFAULT = "~/clothing1m-fl-state"
KEPT = 3  # rounds: what the newest two checkpoints of the server may ask for, and the visit under way
KEYS, GIVEN, CORRECTED, STATE = "keys", "given", "corrected", "state/"


@dataclass(frozen=True)
class ClientState:
    """The files of one client in one run.

    Attributes:
        folder: Made when the first one is saved.
        digest: Of the keys and labels that the client trains on; state belongs to them.
    """

    folder: Path
    digest: str

    @classmethod
    def of(cls, told: Mapping[str, Any], own_folder: str, number: int, digest: str) -> "ClientState":
        """Where this client keeps its state.

        Args:
            told: What the server says about this visit: `run`, the run's identity, and `state-dir`, where clients of
                this run keep their state unless they have a folder of their own; empty: below the user's home.
            own_folder: The node's own `state-dir`, or empty.
            number: The client's, from 0.
            digest: See above.
        """
        run = str(told.get("run", "run"))
        where = Path(own_folder or str(told.get("state-dir", "")) or DEFAULT).expanduser()
        return cls(where / run / f"client-{number:05}", digest)

    def load(self, server_round: int) -> dict[str, Tensor] | None:
        """The state after the visit of a round; None if there is none or it cannot be read.

        Raises:
            ConfigError: It belongs to other images.
        """
        try:
            with safe_open(self._path(server_round), framework="pt") as file:
                metadata = file.metadata() or {}
                names = [name for name in file.keys() if name.startswith(STATE)]  # noqa: SIM118 (no iterator)
                found = {name.removeprefix(STATE): file.get_tensor(name) for name in names}
        except (FileNotFoundError, SafetensorError, OSError, ValueError):
            return None
        if metadata.get("format") != FORMAT:
            return None
        if metadata.get("digest") != self.digest:
            raise ConfigError(
                f"{self._path(server_round)} was kept for other images or labels than this client holds now; the images"
                " must stay the same during a run."
            )
        return found

    def save(
        self, server_round: int, state: Mapping[str, Tensor], keys: np.ndarray, given: Tensor, corrected: Tensor | None
    ) -> None:
        """Keep what a visit left; it is on the disk when this returns, and older files make room.

        Args:
            server_round: The visit's.
            state: By name.
            keys: (n,) bytes, of the client's images in their order.
            given: (n,) int64, the labels they came with.
            corrected: (n,) int64, those that the method believes, if it does.

        Raises:
            ConfigError: The folder cannot be written.
        """
        tensors = {STATE + name: value.detach().cpu().contiguous() for name, value in state.items()}
        if corrected is not None:
            tensors[KEYS] = torch.from_numpy(np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), -1))
            tensors[GIVEN], tensors[CORRECTED] = given.cpu().to(torch.int32), corrected.cpu().to(torch.int32)
        path = self._path(server_round)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, {"format": FORMAT, "digest": self.digest})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"run config: 'method' keeps state between visits, but {self.folder} cannot be written"
                f" ({getattr(error, 'strerror', None) or error}); 'state-dir', of the run or of the node, must be a"
                " folder with room that can be written to."
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        for old in sorted(self.folder.glob("round-*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:05}.safetensors"
