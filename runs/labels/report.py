"""The label report as a whole: read, rank, write, and say what came of it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.text import one_line
from data.user_cache import below_home
from data.whole_folders import complete_or_absent
from runs.labels.doubted import Doubted, read_doubted
from runs.labels.index_page import index_page
from runs.labels.photos import Photos
from runs.labels.sheets import Sheet, write_sheets
from runs.labels.table import write_csv
from runs.labels.truth import Score, score
from runs.places import run_dir
from runs.printing import counted, print_json, say
from runs.run import is_run

NAME = "label-report"
CSV, INDEX = "labels.csv", "index.html"


def labels(named: str, out: Path | None, data: Path | None, top: int, as_json: bool) -> None:
    """Write the label report of a run's clients on this machine, and print what it found.

    Args:
        named: RUN: see `read_doubted`, or the name of a run in the default folder.
        out: The folder to write; None: `NAME` beside the clients' states.
        data: Where all images are now; None: where clients had them.
        top: Images of each contact sheet.
        as_json: Print JSON.

    Raises:
        DataError: What `read_doubted` refuses, `data` is no release, or `out` cannot be written or is in a release.
        RunsError: RUN is neither a folder nor a run.
    """
    folder = below_home(named)
    if not named or not folder.is_dir():
        folder = run_dir(named)
    doubted = read_doubted(folder)
    photos = Photos(doubted.roots, None if data is None else below_home(str(data)))
    target = _free(folder, doubted) if out is None else below_home(str(out))
    _check_outside(target, [*doubted.roots.values(), *([data] if data else [])])
    run = folder.resolve().name if is_run(folder) else doubted.folder.name
    found = score(doubted, photos.true(doubted))
    with complete_or_absent(target) as written:
        write_csv(written / CSV, doubted, photos)
        sheets = write_sheets(written, doubted, photos, top)
        notes = _notes(doubted, photos, sheets, found)
        (written / INDEX).write_text(index_page(run, doubted, sheets, notes), encoding="utf-8")
    if as_json:
        print_json(_as_json(target, run, doubted, sheets, found))
        return
    say(
        f"{counted(len(doubted), 'image')} of {counted(len(doubted.roots), 'client')}: the model would label"
        f" {int(doubted.differ.sum()):,} differently."
    )
    for note in notes:
        say(note)
    say(f"{(target / INDEX).resolve()}: open it in a browser; {CSV} beside it has all images.")


def _free(folder: Path, doubted: Doubted) -> Path:
    """Beside the states, where nothing else reads it, and not where an earlier report is, which people may edit."""
    parent = folder if is_run(folder) else doubted.folder
    number = 1
    while (found := parent / (NAME if number == 1 else f"{NAME}-{number}")).exists():
        number += 1
    return found


def _check_outside(target: Path, roots: Sequence[Path]) -> None:
    for root in roots:
        if target.resolve().is_relative_to(below_home(str(root)).resolve()):
            raise DataError(f"--out is {target}, which is inside the dataset {root}; it must be elsewhere.")


def _notes(doubted: Doubted, photos: Photos, sheets: Sequence[Sheet], found: Score | None) -> list[str]:
    notes = []
    if photos.missing:
        client, why = min(photos.missing.items())
        whose = counted(len(photos.missing), "client")
        notes.append(
            f"Images of {whose} cannot be shown, since their data is gone; if it has moved, --data names where it is"
            f" now. Of client {client}: {one_line(why)}"
        )
    elif unreadable := sum(sheet.unreadable for sheet in sheets):
        shown = sum(sheet.shown for sheet in sheets)
        notes.append(
            f"{unreadable:,} of {counted(shown, 'image')} on the sheets cannot be read; if they have moved, --data"
            " names where they are now."
        )
    if found:
        notes.append(found.sentence())
    return notes


def _as_json(target: Path, run: str, doubted: Doubted, sheets: Sequence[Sheet], found: Score | None) -> dict[str, Any]:
    return {
        "folder": str(target.resolve()),
        "run": run,
        "images": len(doubted),
        "clients": len(doubted.roots),
        "labelled-differently": int(doubted.differ.sum()),
        "sheets": [{"name": doubted.class_names[sheet.label], **asdict(sheet)} for sheet in sheets],
        "truth": {name.replace("_", "-"): value for name, value in asdict(found).items()} if found else None,
    }
