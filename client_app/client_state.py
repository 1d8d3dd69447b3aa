"""What a method remembers about a client's images between visits, on that client's own disk.

It never travels: label estimates of single images are what federated learning keeps at home. Each visit writes one
file, named by its round. Each message of the server names the round of this client's last good reply, and the visit
continues from the state of exactly that round. The state of a visit that did not count, because the run was killed or
the reply was lost, is ignored. A resumed run therefore continues like one that was never stopped.
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
from messages.keys import RUN, STATE_DIR

FORMAT = "clothing1m-fl client state 1"
DEFAULT = "~/clothing1m-fl-state"
KEPT = 3  # rounds: the two that the server's newest checkpoints may ask for, and the current one
KEYS, GIVEN, CORRECTED, STATE = "keys", "given", "corrected", "state/"


@dataclass(frozen=True)
class ClientState:
    """The files of one client in one run.

    Attributes:
        folder: Created with the first file.
        digest: Hash of the keys and labels that the client trains on, to which the state belongs.
    """

    folder: Path
    digest: str

    @classmethod
    def of(cls, about_visit: Mapping[str, Any], own_folder: str, number: int, digest: str) -> "ClientState":
        """Where this client keeps its state.

        Args:
            about_visit: From the server: `run`, the run's identity, and `state-dir`, where clients of this run keep
                their state unless their node has its own folder; empty: under the user's home.
            own_folder: The node's own `state-dir`, or empty.
            number: The client's, from 0.
            digest: See above.
        """
        run = str(about_visit.get(RUN, "run"))
        parent = Path(own_folder or str(about_visit.get(STATE_DIR, "")) or DEFAULT).expanduser()
        return cls(parent / run / f"client-{number:05}", digest)

    def load(self, server_round: int) -> dict[str, Tensor] | None:
        """The state after the visit in a round; None if there is none or it cannot be read.

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
                f"{self._path(server_round)} was saved for other images or labels than this client holds now; they must"
                " stay the same during a run."
            )
        return found

    def save(
        self, server_round: int, state: Mapping[str, Tensor], keys: np.ndarray, given: Tensor, corrected: Tensor | None
    ) -> None:
        """Save the state after a visit and delete old files; the state is on disk when this returns.

        Args:
            server_round: The visit's.
            state: Tensors by name.
            keys: (n,) bytes, of the client's images in their order.
            given: (n,) int64, the given labels.
            corrected: (n,) int64, the labels that the method believes instead, if it corrects any.

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
                " writable folder with free space."
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        for old in sorted(self.folder.glob("round-*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:05}.safetensors"
