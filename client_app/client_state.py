"""What a client remembers about its images between visits, on its own disk: a method's estimates, and with `inspection`
what models made of the labels (`learning.inspection`).

With ``batchnorm = "local"``, the client's own BatchNorm is there as well (`client_app.own_batchnorm`).

It never travels: label estimates of single images are what federated learning keeps at home. Each visit writes one
file, named by its round, with a checksum. Each message of the server names the round of this client's last good reply,
and the visit continues from the state of exactly that round. The state of a visit that did not count, because the run
was killed or the reply was lost, is ignored. A resumed run therefore continues like one that was never stopped.

A damaged file is renamed, and the visit continues from the state before it. A client whose state is gone, as it is
after a move to another machine, starts afresh. The server's log tells of both.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.common import log
from safetensors import SafetensorError
from torch import Tensor

from config.run_config import ConfigError
from data.sealed import DamagedError, UnreadableError, read_sealed, write_sealed
from data.user_cache import below_home
from data.whole_files import leftovers, round_files, round_of, round_path
from learning.inspection import Inspected
from messages.keys import RUN, STATE_DIR

FORMAT = "clothing1m-fl client state 2"
DEFAULT = "~/clothing1m-fl-state"
KEPT = 3  # rounds: the two that the server's newest checkpoints may ask for, and the current one
DAMAGED = ".damaged"
KEYS, GIVEN, CORRECTED, STATE = "keys", "given", "corrected", "state/"
# Arrays of `Inspected`, and how often; facts beside them: where this client's images are, and their classes' names.
MARGINS, PREDICTED, CONFIDENCE = "inspection/margins", "inspection/predicted", "inspection/confidence"
VISITS = "inspection/visits"
ROOT, CLASSES = "root", "classes"


@dataclass(frozen=True)
class Found:
    """A state that a visit continues from.

    Attributes:
        state: Tensors by name.
        corrected: (n,) int64, the labels that the method believed; None if it corrects none.
        inspected: What earlier visits saw of the labels; None without `inspection`.
        exact: Whether it is that of the round that the server asked for.
    """

    state: dict[str, Tensor]
    corrected: Tensor | None = None
    inspected: Inspected | None = None
    exact: bool = True


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
        parent = below_home(own_folder or str(about_visit.get(STATE_DIR, "")) or DEFAULT)
        return cls(parent / run / f"client-{number:05}", digest)

    def load(self, server_round: int) -> Found | None:
        """The state after the visit in a round, or if that is damaged, the newest one before it; None if it is gone.

        Raises:
            ConfigError: It belongs to other images, it cannot be opened, or it is damaged and there is none before it.
        """
        path = round_path(self.folder, server_round)
        aside = path.with_name(path.name + DAMAGED)
        try:
            return self._read(path)
        except UnreadableError as error:
            raise ConfigError(f"{path} {error}; it must be a file that this client may read.") from None
        except DamagedError as error:
            why = str(error)
        if _is_there(path):
            self._rename(path, aside)
        elif _is_there(aside):
            why = "is damaged"  # as an earlier attempt at this visit found
        else:
            return None
        return replace(self._before(server_round, aside, why), exact=False)

    def _before(self, server_round: int, aside: Path, why: str) -> Found:
        """The newest valid state before a round whose file is damaged, and is now `aside`."""
        for number, path in reversed(round_files(self.folder).items()):
            if number < server_round:
                with contextlib.suppress(DamagedError):
                    found = self._read(path)
                    log(WARNING, "%s %s: continuing from the state of round %d.", aside, why, number)
                    return found
        raise ConfigError(
            f"{aside} is this client's state after round {server_round} and {why}, and there is none before it: restore"
            f" it as {aside.name.removesuffix(DAMAGED)}, or delete it to let the client start afresh."
        )

    def _rename(self, path: Path, aside: Path) -> None:
        try:
            path.rename(aside)
        except OSError as error:
            raise ConfigError(
                f"{path} is damaged and cannot be renamed to {aside.name} ({error.strerror}); rename it, or delete it"
                " to let the client start afresh."
            ) from None

    def _read(self, path: Path) -> Found:
        facts, arrays = read_sealed(path, FORMAT)
        if facts.get("digest") != self.digest:
            raise ConfigError(
                f"{path} was saved for other images or labels than this client holds now; they must stay the same"
                " during a run."
            )
        state = {name.removeprefix(STATE): torch.from_numpy(arrays[name]) for name in arrays if name.startswith(STATE)}
        corrected = torch.from_numpy(arrays[CORRECTED].astype(np.int64)) if CORRECTED in arrays else None
        return Found(state, corrected, _inspected(arrays))

    def save(
        self,
        server_round: int,
        state: Mapping[str, Tensor],
        keys: np.ndarray,
        given: Tensor,
        corrected: Tensor | None,
        inspected: Inspected | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the state after a visit and delete old files; the state is on disk when this returns.

        Args:
            server_round: The visit's.
            state: Tensors by name.
            keys: (n,) bytes, of the client's images in their order.
            given: (n,) int64, the given labels.
            corrected: (n,) int64, the labels that the method believes instead, if it corrects any.
            inspected: What models made of the given labels, with `inspection`.
            about: Facts about the images, for whoever reads the file elsewhere; whatever JSON can hold.

        Raises:
            ConfigError: The folder cannot be written.
        """
        arrays = {STATE + name: value.detach().cpu().numpy() for name, value in state.items()}
        if corrected is not None or inspected is not None:
            arrays[KEYS] = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), -1)
            arrays[GIVEN] = given.cpu().numpy().astype(np.int32)
        if corrected is not None:
            arrays[CORRECTED] = corrected.cpu().numpy().astype(np.int32)
        if inspected is not None:
            arrays |= _arrays_of(inspected)
        facts = {**(about or {}), "digest": self.digest}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_sealed(round_path(self.folder, server_round), FORMAT, facts, arrays)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"run config: clients keep state for 'method', 'batchnorm' or 'inspection', but {self.folder} cannot be"
                f" written ({getattr(error, 'strerror', None) or error}); 'state-dir', of the run or of the node, must"
                " be a writable folder with free space."
            ) from None
        self._tidy(server_round)

    def _tidy(self, server_round: int) -> None:
        """Delete old states, and what killed visits of earlier rounds left behind.

        Such a visit may still run, on whatever machine, but its reply is too late to count. States of later rounds
        stay: the run has returned to this one, and may be sent back to theirs.
        """
        done = [path for number, path in round_files(self.folder).items() if number <= server_round]
        dead = [path for path, name in leftovers(self.folder) if (round_of(name) or server_round) < server_round]
        for path in [*done[:-KEPT], *dead]:
            with contextlib.suppress(OSError):  # the next visit tries again
                path.unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _arrays_of(inspected: Inspected) -> dict[str, np.ndarray]:
    return {
        MARGINS: inspected.margins.numpy(),
        VISITS: np.array([inspected.visits], np.int64),
        PREDICTED: inspected.predicted.numpy(),
        CONFIDENCE: inspected.confidence.numpy(),
    }


def _inspected(arrays: Mapping[str, np.ndarray]) -> Inspected | None:
    if MARGINS not in arrays:
        return None
    margins, predicted, confidence = (torch.from_numpy(arrays[name]) for name in (MARGINS, PREDICTED, CONFIDENCE))
    return Inspected(margins, int(arrays[VISITS][0]), predicted, confidence)
