"""`python -m client_app.corrected_labels`: writes the labels that clients corrected, from their state, to a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from data.commands import run_command_line
from data.errors import DataError
from data.layout.key_files import MAX_CLASSES, find, read_labels, unique_order
from data.options import file_to_write
from data.outputs import check_output
from data.user_cache import below_home

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(width=120, highlight=False)


@dataclass(frozen=True)
class Corrected:
    """Labels of the images that clients have judged.

    Attributes:
        keys: (n,) bytes, in byte order.
        given: (n,) int32, the given labels.
        believed: (n,) int32, the labels that the method believes instead.
        clients: How many clients they come from.
    """

    keys: np.ndarray
    given: np.ndarray
    believed: np.ndarray
    clients: int


def read_corrected(folder: Path) -> Corrected:
    """The corrected labels of one run's clients, each after its last visit.

    Args:
        folder: A run's folder, or a folder that `state-dir` names, or one run's folder in that.

    Raises:
        DataError: Clients of no run or of several, the method does not correct labels, or all states of a client are
            damaged.
    """
    from client_app.client_state import CORRECTED, GIVEN  # imports torch, which `--help` does without
    from client_app.kept_states import clients_of_one_run, newest_states

    clients = clients_of_one_run(folder, "the method must be one that corrects labels")
    parts = [
        (kept.keys, kept.arrays[GIVEN], kept.arrays[CORRECTED])
        for kept in newest_states(clients)
        if CORRECTED in kept.arrays
    ]
    if not parts:
        raise DataError(f"{folder} has clients' state without corrected labels; the method must be one that corrects.")
    keys = np.concatenate([part[0] for part in parts])
    order = unique_order(keys, folder)
    given, believed = (np.concatenate([part[column] for part in parts])[order] for column in (1, 2))
    return Corrected(keys[order], given, believed, len(parts))


def write_labels(corrected: Corrected, out: Path, base: Path | None = None) -> int:
    """Write lines ``key label`` as in ``noisy_label_kv.txt``.

    Args:
        corrected: What to write.
        out: A file that does not exist yet.
        base: A label file; all of its lines are written, with the labels of `corrected` where it has any.

    Returns:
        The number of lines.

    Raises:
        DataError: `out` exists or cannot be written, or `base` is not a label file.
    """
    check_output(out, "OUT")
    keys, labels = corrected.keys, corrected.believed
    if base is not None:
        keys, labels = read_labels(base, MAX_CLASSES)
        if len(keys):
            rows, found = find(keys[order := unique_order(keys, base)], corrected.keys)
            labels[order[found]] = corrected.believed[rows[found]]
    lines = [f"{key.decode()} {label}\n" for key, label in zip(keys.tolist(), labels.tolist(), strict=True)]
    try:
        with out.open("x", encoding="utf-8") as file:
            file.writelines(lines)
    except FileExistsError:
        raise DataError(f"{out} already exists; it must be a file that does not exist yet.") from None
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}.") from None
    return len(lines)


@app.command(epilog="Example: python -m client_app.corrected_labels ~/clothing1m-fl-runs/my-run labels.txt")
def labels(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    out: Annotated[Path, typer.Argument(metavar="OUT", callback=file_to_write)],
    base: Annotated[
        Path | None, typer.Option(help="A noisy_label_kv.txt: write all of its lines, corrected where possible.")
    ] = None,
) -> None:
    """Write the labels that clients corrected, with a method that corrects labels (elr, fedelc).

    DIR is a run's folder, or its `state-dir`; OUT is the file to write, in the format of noisy_label_kv.txt.

    Corrected labels never leave a client: on real nodes, each site runs this on its own machine.
    """
    corrected = read_corrected(below_home(str(folder)))
    lines = write_labels(corrected, below_home(str(out)), base)
    changed = int((corrected.given != corrected.believed).sum())
    console.print(
        f"{corrected.clients} clients judged {len(corrected.keys):,} images and corrected the label of {changed:,};"
        f" wrote {lines:,} lines to {out}."
    )


def main() -> None:
    run_command_line(app, "python -m client_app.corrected_labels", (DataError,))


if __name__ == "__main__":
    main()
