"""``client-models/``: each client's last usable model, for methods whose server half sends some of them to others.

    client-models/client-00007-round-00012.safetensors

One file for each client that has been heard, as its reply held it once it was unpacked: what travels of the network, in
float32. A client's last model is that of its last good reply, whose round is in every checkpoint (`Checkpoint.visits`).
A file is therefore written before the checkpoint that first refers to it, and removed only when no checkpoint that is
kept refers to it any more, so that a run that is killed at any moment resumes with the same models. What a killed run
wrote beyond its last checkpoint is overwritten by the same rounds, or removed once they have passed.

No more of them are in memory than go out in one round.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from flwr.app import ArrayRecord
from torch import Tensor

from config.run_config import ConfigError
from data.sealed import DamagedError, read_sealed, write_sealed
from messages.arrays import as_array, as_numpy
from server_app.files import CLIENT_MODELS
from server_app.stopping import RunStoppedError
from server_app.traffic import in_words
from server_app.writing import writing

FORMAT = "clothing1m-fl client model 1"
NAME = re.compile(r"client-(\d{5}|[1-9]\d{5,})-round-(\d{5}|[1-9]\d{5,})\.safetensors")
Version = tuple[int, int]
"""A client's partition and the round of the reply."""


class ClientModels:
    """The files of one run."""

    def __init__(self, run_dir: Path, run: str) -> None:
        """Nothing is read or written yet.

        Args:
            run_dir: The run's folder.
            run: Its identity.
        """
        self._folder = run_dir / CLIENT_MODELS
        self._run = run

    def needed(self, clients: int, model: Mapping[str, Tensor]) -> str:
        """What the folder will take on disk, in a sentence.

        Args:
            clients: How many there are.
            model: What travels of the network.
        """
        size = sum(value.nbytes for value in model.values())
        return (
            f"The server keeps each client's last model in {self._folder}: {in_words(size * clients)}, or up to twice"
            " that while the best round is an early one."
        )

    def path(self, client: int, server_round: int) -> Path:
        """Where the model of a client's reply in a round is."""
        return self._folder / f"client-{client:05}-round-{server_round:05}.safetensors"

    def keep(self, client: int, server_round: int, model: ArrayRecord) -> None:
        """Write the model of a usable reply; it is on disk when this returns.

        Raises:
            RunStoppedError: The machine does not let it be written.
        """
        path, arrays = self.path(client, server_round), {name: as_numpy(array) for name, array in model.items()}
        with writing(path):
            self._folder.mkdir(exist_ok=True)
            write_sealed(path, FORMAT, self._facts(client, server_round), arrays)

    def load(self, client: int, server_round: int) -> ArrayRecord:
        """A model as it was kept.

        Raises:
            RunStoppedError: Its file is gone, or damaged.
        """
        path = self.path(client, server_round)
        try:
            facts, arrays = read_sealed(path, FORMAT)
            if facts != self._facts(client, server_round) | {"order": list(arrays)}:
                raise DamagedError("is that of another client, round or run")
        except DamagedError as error:
            raise RunStoppedError(
                f"{path} {error}; it must be the model of client {client} after round {server_round}: restore it, then"
                " resume the run."
            ) from None
        return ArrayRecord({name: as_array(value) for name, value in arrays.items()})

    def check(self, visits: Mapping[int, int]) -> None:
        """Check that a run can resume: the models to which its checkpoint refers are there, and whole.

        Args:
            visits: By partition, the round of the last good reply.

        Raises:
            ConfigError: One is not.
        """
        for client, server_round in sorted(visits.items()):
            try:
                self.load(client, server_round).clear()
            except RunStoppedError as error:
                raise ConfigError(
                    f"run config: 'resume' continues a run that keeps its clients' models, but {error}"
                ) from None

    def remove_all_but(self, wanted: Collection[Version], last_round: int) -> None:
        """Remove what nobody needs any more of the rounds up to one; later ones stay, as long as they may come back."""
        for path, version in self._files():
            if version[1] <= last_round and version not in wanted:
                with contextlib.suppress(OSError):  # the next round tries again
                    path.unlink(missing_ok=True)

    def _facts(self, client: int, server_round: int) -> dict[str, str | int]:
        return {"run": self._run, "client": client, "round": server_round}

    def _files(self) -> Iterable[tuple[Path, Version]]:
        with contextlib.suppress(OSError):
            return [(path, found) for path in sorted(self._folder.iterdir()) if (found := version_of(path.name))]
        return []


class Outgoing:
    """The models that go out in one round: each is read once, whoever else gets it."""

    def __init__(self, models: ClientModels | None, visits: Mapping[int, int], method: str) -> None:
        """Nothing is read yet.

        Args:
            models: The run's; None if its method keeps none.
            visits: By partition, the round of the last good reply.
            method: Its name, for sentences.
        """
        self._models, self._visits, self._method = models, visits, method
        self._read: dict[int, ArrayRecord] = {}

    def of(self, client: int) -> ArrayRecord:
        """A client's last model, in the same record whenever it is asked for in this round.

        Raises:
            RunStoppedError: There is none, or its file is damaged.
        """
        if self._models is None or client not in self._visits:
            raise RunStoppedError(
                f"the server half of 'method' {self._method!r} sends the model of client {client}, of which there is"
                " none; its tell_models must name clients that have been heard."
            )
        if client not in self._read:
            self._read[client] = self._models.load(client, self._visits[client])
        return self._read[client]

    def let_go(self) -> None:
        """Empty the records: they are part of reference cycles, see `messages.arrays.take_arrays`."""
        for record in self._read.values():
            record.clear()
        self._read = {}


def version_of(name: str) -> Version | None:
    """Client and round that a file's name stands for; None if it is no such name."""
    found = NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found and int(found[2]) else None
