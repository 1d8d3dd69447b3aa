"""States of clients as those of a run with `inspection` leave them, written by hand."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from client_app.client_state import FORMAT
from data.sealed import write_sealed
from data.whole_files import round_path
from tests.runs.folders import Said

Runs = Callable[..., Said]
CLASSES = ("a/b", "=x", "Y" * 200)


def write_state(
    folder: Path,
    client: int,
    keys: Sequence[bytes],
    given: Sequence[int],
    margins: Sequence[float],
    predicted: Sequence[int] | None = None,
    *,
    visits: int = 1,
    root: Path = Path("/nowhere"),
    classes: Sequence[str] = CLASSES,
    server_round: int = 1,
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """One client's state after a round, in a run's folder of states; by default it predicts what is given.

    Args:
        folder: The run's.
        client: Its number.
        keys: Of its images.
        given: Their labels.
        margins: Sums over visits.
        predicted: At the last visit, with probability 0.5.
        visits: How often it has looked.
        root: Where its images are.
        classes: Their names.
        server_round: Of the last visit.
        more: Further arrays.
    """
    path = round_path(folder / f"client-{client:05}", server_round)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.array(keys, "S")
    arrays: dict[str, np.ndarray] = {
        "keys": table.view(np.uint8).reshape(len(keys), -1),
        "given": np.array(given, np.int32),
        "inspection/margins": np.array(margins, np.float32),
        "inspection/visits": np.array([visits], np.int64),
        "inspection/predicted": np.array(given if predicted is None else predicted, np.int16),
        "inspection/confidence": np.full(len(keys), 0.5, np.float32),
        **(more or {}),
    }
    write_sealed(path, FORMAT, {"digest": "d", "root": str(root), "classes": list(classes)}, arrays)
    return path


def key(number: int) -> bytes:
    return f"images/0/00/{number},{number}.jpg".encode()


def rows_of(report: Path) -> list[dict[str, str]]:
    """Lines of a label report."""
    with (report / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
