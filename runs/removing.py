"""`python -m runs remove`: whole runs, or their large files, off the disk; nothing else, and nothing by half.

What is removed first gets a hidden name beside its place and is then deleted. So a run is there as a whole or not at
all, whenever this process is killed; what it leaves under the hidden name, the next removal deletes.
"""

import contextlib
import re
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typer

from config.run_config import ConfigError
from data.text import shown
from runs.errors import RunsError
from runs.places import bytes_on_disk, folder_of_runs, run_dir
from runs.printing import counted, in_bytes, in_minutes, print_table, say
from runs.run import Run, find_runs, read_run, rows_of
from server_app.files import CHECKPOINTS, CLIENT_MODELS
from server_app.run_lock import RunLock

# What resuming, and using the model, needs; results do without.
LARGE = (CHECKPOINTS, CLIENT_MODELS, "state", "model.safetensors")
HIDDEN = re.compile(r"\..+\.removed-[0-9a-f]{8}")
AGE = re.compile(r"(\d{1,6})\s*([hdw])")
HOURS = {"h": 1, "d": 24, "w": 7 * 24}


@dataclass(frozen=True)
class Doomed:
    """What is to go.

    Attributes:
        name: For people.
        paths: To delete.
        run: Whose they are; None for what an interrupted removal left.
    """

    name: str
    paths: tuple[Path, ...]
    run: Run | None = None

    @property
    def size(self) -> int:
        return sum(map(bytes_on_disk, self.paths))


def remove(named: Sequence[str], older_than: str, unfinished: bool, keep_results: bool, yes: bool) -> None:
    """Ask, then remove.

    Args:
        named: Runs; with `older_than`, at most one folder of runs.
        older_than: An age; empty: the runs that are named.
        unfinished: Of old runs, also those that did not finish.
        keep_results: Remove only what is in `LARGE`.
        yes: Do not ask.

    Raises:
        RunsError: Something cannot be removed. What could be is.
    """
    runs = old_runs(named, older_than, unfinished) if older_than else [_named(one) for one in named]
    runs = list({run.folder: run for run in runs}.values())
    if not runs and not older_than:
        raise RunsError("there is nothing to remove: name runs, or say --older-than.")
    doomed = _left_by([run.folder for run in runs] if keep_results else _parents(runs, named, older_than))
    doomed += [one for run in runs if (one := _of(run, keep_results)).paths]
    if not doomed:
        say("No run is that old." if older_than and not runs else "There is nothing left to remove.")
        return
    _show(doomed, keep_results)
    if confirmed("Remove them?", yes):
        _remove_all(doomed)


def old_runs(named: Sequence[str], older_than: str, unfinished: bool) -> list[Run]:
    """Runs of a folder of which no file has changed for that long; none that is running, or a link.

    Raises:
        RunsError: `older_than` is no age, or there is no such folder.
    """
    if len(named) > 1:
        raise RunsError("with --older-than, RUN is the one folder whose runs are looked at; name it alone, or none.")
    before = datetime.now(UTC) - age(older_than)
    folder = folder_of_runs(named[0] if named else "")
    wanted = ("finished", "stopped", "interrupted") if unfinished else ("finished",)
    found = find_runs(folder) if folder.is_dir() else iter(())
    return [one for one in found if one.status in wanted and one.changed < before and not one.folder.is_symlink()]


def age(text: str) -> timedelta:
    """``12h``, ``30d`` or ``8w``.

    Raises:
        RunsError: Anything else.
    """
    found = AGE.fullmatch(text.strip())
    if not found:
        raise RunsError(f"--older-than is {shown(text)}; it must be hours, days or weeks, such as 12h, 30d or 8w.")
    return min(timedelta(hours=int(found[1]) * HOURS[found[2]]), timedelta(days=365 * 100))


def leftovers(parent: Path) -> list[Path]:
    """What interrupted removals left in a folder, by name."""
    with contextlib.suppress(OSError):
        return sorted(
            path for path in parent.iterdir() if HIDDEN.fullmatch(path.name) and (path.is_symlink() or path.exists())
        )
    return []


def confirmed(question: str, yes: bool) -> bool:
    """Whether the user agrees.

    Raises:
        RunsError: Nobody is there to answer, or Ctrl-C.
    """
    try:
        agreed = yes or typer.confirm(question)
    except (typer.Abort, OSError):
        raise RunsError("nothing was removed, since nobody answered; --yes does without the question.") from None
    if not agreed:
        say("Nothing was removed.")
    return agreed


def delete(path: Path) -> None:
    """Delete a file, a folder or a link, not what it leads to; nobody ever finds half of it under its name.

    Raises:
        RunsError: It cannot be deleted, or not all of it.
    """
    hidden = path
    try:
        if not HIDDEN.fullmatch(path.name):
            hidden = path.rename(path.with_name(f".{path.name[:50]}.removed-{uuid.uuid4().hex[:8]}"))
        if hidden.is_dir() and not hidden.is_symlink():
            shutil.rmtree(hidden)
        else:
            hidden.unlink()
    except FileNotFoundError:  # another process deletes it, too
        return
    except OSError as error:
        what = "cannot be removed" if hidden == path else f"is now {hidden.name}, not all of which can be deleted"
        raise RunsError(f"{path} {what} ({error.strerror}).") from None


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back in the block, which asks between its steps whether to stop; a second one ends it at once."""
    pressed = threading.Event()

    def on_signal(*_: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _named(named: str) -> Run:
    folder = run_dir(named)
    if folder.is_symlink():
        raise RunsError(f"RUN is {shown(named)}, a link to {folder.resolve()}; name that folder itself.")
    run = read_run(folder.resolve())
    if run.in_use:
        raise RunsError(f"{run.folder} is in use by a run that is running; wait until it ends, or stop it.")
    return run


def _parents(runs: Sequence[Run], named: Sequence[str], older_than: str) -> list[Path]:
    if older_than:
        return [rows_of(folder_of_runs(named[0] if named else ""))]
    return sorted({run.folder.parent for run in runs})


def _left_by(parents: Sequence[Path]) -> list[Doomed]:
    return [Doomed(f"{path.name} (left)", (path,)) for parent in parents for path in leftovers(parent)]


def _of(run: Run, keep_results: bool) -> Doomed:
    if not keep_results:
        return Doomed(run.name, (run.folder,), run)
    large = (run.folder / name for name in LARGE)
    return Doomed(run.name, tuple(path for path in large if path.exists() or path.is_symlink()), run)


def _show(doomed: Sequence[Doomed], keep_results: bool) -> None:
    """The question's table: whoever says yes knows what goes."""
    sizes = [one.size for one in doomed]
    rows = []
    for one, size in zip(doomed, sizes, strict=True):
        run = one.run
        about = (in_minutes(run.started), run.status, f"{run.done}/{run.asked or '?'}") if run else ("", "", "")
        rows.append((one.name, *about, in_bytes(size)))
    print_table(("name", "started", "status", "rounds", "size"), rows, right=("rounds", "size"))
    what = "checkpoints, clients' state and weights of " if keep_results else ""
    say(f"{what}{counted(sum(one.run is not None for one in doomed), 'run')}, {in_bytes(sum(sizes))} in all")
    unfinished = [one.name for one in doomed if one.run and one.run.status != "finished"]
    if unfinished:
        say(f"Cannot be resumed then: {', '.join(unfinished)}.")


def _remove_all(doomed: Sequence[Doomed]) -> None:
    """One after another; what cannot go does not keep the others."""
    wrong: list[str] = []
    gone = 0
    with between_steps() as stop:
        for one in doomed:
            if stop():
                wrong.append(f"stopped after {gone} of {len(doomed)}; the others are whole.")
                break
            try:
                _remove(one)
                gone += 1
            except RunsError as error:
                wrong.append(str(error))
    say(f"Removed {gone} of {len(doomed)}.")
    if wrong:
        raise RunsError(" ".join(wrong))


def _remove(one: Doomed) -> None:
    """With the run's lock, so that nothing resumes it meanwhile."""
    with RunLock() as lock:
        if one.run is not None:
            try:
                lock.take(one.run.folder)
            except ConfigError as error:
                raise RunsError(f"{one.name} stays: {str(error).removeprefix('run config: ')}") from None
        for path in one.paths:
            delete(path)
