"""What clients have kept of one run, read for the owner of their machine: each client's newest state."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from client_app.client_state import FORMAT, KEYS
from data.errors import DataError
from data.sealed import DamagedError, read_sealed
from data.whole_files import round_files, round_of

NAMED = 5  # runs in a sentence


@dataclass(frozen=True)
class Kept:
    """One client's newest state that is not damaged.

    Attributes:
        client: Its number, from 0.
        round: After whose visit it was written.
        facts: Beside the arrays.
        arrays: By name; `client_app.client_state` says which there are.
    """

    client: int
    round: int
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def keys(self) -> np.ndarray:
        """(n,) bytes, of the client's images in their order; only with arrays that speak of single images."""
        table = self.arrays[KEYS]
        return table.view(f"S{table.shape[1]}")[:, 0]


def clients_of_one_run(folder: Path, needs: str) -> list[Path]:
    """The folders of one run's clients, by number.

    Args:
        folder: A run's folder, or a folder that `state-dir` names, or one run's folder in that.
        needs: What the run must have done, the end of a sentence.

    Raises:
        DataError: There are clients of no run, or of several.
    """
    clients = sorted(path for path in folder.glob("**/client-[0-9]*") if path.is_dir())
    runs = sorted({client.parent.name for client in clients})
    if not clients:
        raise DataError(
            f"{folder} has no clients' state; it must be a run's folder, or that run's 'state-dir', and {needs}."
        )
    if len(runs) > 1:
        names = runs[:NAMED] + [f"{len(runs) - NAMED:,} more"] * (len(runs) > NAMED)
        newest = max(clients, key=lambda client: client.stat().st_mtime).parent
        raise DataError(
            f"{folder} has clients of the runs {', '.join(names)}; it must be the folder of one of them, such as"
            f" {newest}, which has changed last."
        )
    return clients


def newest_states(clients: list[Path]) -> Iterator[Kept]:
    """Each client's newest state that is valid; says so if newer ones are damaged. Clients without files are left out.

    Raises:
        DataError: All states of a client are damaged.
    """
    for client in clients:
        errors = []
        for path in reversed(round_files(client).values()):
            try:
                facts, arrays = read_sealed(path, FORMAT)
            except DamagedError as error:
                errors.append(f"{path} {error}")
                continue
            if errors:
                typer.echo(f"{'; '.join(errors)}: using {path.name}, the newest state that is valid.", err=True)
            number = client.name.removeprefix("client-")
            yield Kept(int(number) if number.isdecimal() else 0, round_of(path.name) or 0, facts, arrays)
            break
        else:
            if errors:
                raise DataError(f"{errors[0]}, and this client has no other state that is valid; restore one of them.")
