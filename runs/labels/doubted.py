"""Images in the order in which the model doubts their labels, from what clients kept of their inspections.

By the mean over a client's visits of the margin of the given label's logit over the largest other one (AUM, Pleiss et
al. 2020, arXiv 2001.10528).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client_app.client_state import CLASSES, CONFIDENCE, CORRECTED, GIVEN, MARGINS, PREDICTED, ROOT, VISITS
from client_app.kept_states import Kept, clients_of_one_run, newest_states
from data.errors import DataError


@dataclass(frozen=True)
class Doubted:
    """Images of one run's clients on this machine, the most doubted first.

    Attributes:
        folder: That of this run's states.
        class_names: In index order.
        roots: By client, where it had its images.
        clients: (n,) int64.
        keys: (n,) bytes. Sites that imported photos may have the same ones.
        given: (n,) int32, the labels.
        predicted: (n,) int32, what the model that a client received at its last visit takes them for.
        confidence: (n,) float64, how probable it takes that to be.
        margins: (n,) float64, mean margins, ascending; those that are no numbers come last.
        visits: (n,) int64, of the image's client.
        believed: (n,) int32, what the method believes instead; -1 where it says nothing.
    """

    folder: Path
    class_names: tuple[str, ...]
    roots: dict[int, Path]
    clients: np.ndarray
    keys: np.ndarray
    given: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    margins: np.ndarray
    visits: np.ndarray
    believed: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def differ(self) -> np.ndarray:
        """(n,) bool, of which images the model takes another class for the most probable."""
        differ: np.ndarray = self.predicted != self.given
        return differ


def read_doubted(folder: Path) -> Doubted:
    """All images that one run's clients on this machine inspected, ranked.

    Args:
        folder: A run's folder, or a folder that `state-dir` names, or one run's folder in that.

    Raises:
        DataError: Clients of no run or of several, none that inspects, or all states of a client are damaged.
    """
    folders = clients_of_one_run(folder, "the run's 'inspection' must be before or both")
    kept = [state for state in newest_states(folders) if MARGINS in state.arrays]
    if not kept:
        raise DataError(
            f"{folder} has clients' state without inspected images; the run's 'inspection' was none, so the next run"
            " must set it to before or both."
        )
    return ranked(folders[0].parent, kept)


def ranked(folder: Path, kept: Sequence[Kept]) -> Doubted:
    """The images of these states in one order; equal margins by client and key."""
    clients, margins, visits, believed = [], [], [], []
    for state in kept:
        count, (looks,) = len(state.keys), state.arrays[VISITS].tolist()
        clients.append(np.full(count, state.client))
        visits.append(np.full(count, looks))
        margins.append(state.arrays[MARGINS].astype(np.float64) / max(1, looks))
        believed.append(state.arrays.get(CORRECTED, np.full(count, -1, np.int32)))
    columns = {
        "clients": np.concatenate(clients),
        "keys": np.concatenate([state.keys for state in kept]),
        "given": np.concatenate([state.arrays[GIVEN] for state in kept]),
        "predicted": np.concatenate([state.arrays[PREDICTED].astype(np.int32) for state in kept]),
        "confidence": np.concatenate([state.arrays[CONFIDENCE].astype(np.float64) for state in kept]),
        "margins": np.concatenate(margins),
        "visits": np.concatenate(visits),
        "believed": np.concatenate(believed),
    }
    order = np.lexsort((columns["keys"], columns["clients"], columns["margins"]))
    return Doubted(
        folder,
        tuple(kept[0].facts[CLASSES]),
        {state.client: Path(state.facts[ROOT]) for state in kept},
        **{name: values[order] for name, values in columns.items()},
    )
