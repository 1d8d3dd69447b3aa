"""Where runs are: what a name on the command line stands for, and how much disk a folder takes."""

import os
from collections.abc import Iterator
from pathlib import Path

from config.paths import DEFAULT_OUTPUT
from config.rules import closest
from data.text import shown
from data.user_cache import below_home
from runs.errors import RunsError
from runs.run import Run, is_experiment, is_run, read_run

BLOCK = 512  # bytes, in which the system counts whatever the file system's own blocks are


def default_folder() -> Path:
    """Where the app writes runs if nobody says otherwise."""
    return below_home(DEFAULT_OUTPUT)


def folder_of_runs(named: str) -> Path:
    """The folder that DIR names; empty: the default one.

    Raises:
        RunsError: There is none, or it is itself a run. The default one need not be there.
    """
    folder = below_home(named) if named else default_folder()
    try:
        is_folder, is_there = folder.is_dir(), os.path.lexists(folder)
    except (OSError, ValueError) as error:
        raise RunsError(f"DIR is {shown(named)}, which cannot be looked at ({_why(error)}).") from None
    if is_folder and is_run(folder) and not is_experiment(folder):
        raise RunsError(f"{folder} is a run, and no folder of runs; `python -m runs show` is for one run.")
    if not is_folder and (named or is_there):
        raise RunsError(f"DIR is {shown(named or str(folder))}; it must be a folder of runs, or of an experiment.")
    return folder


def run_dir(named: str) -> Path:
    """The folder of the run that RUN names: a path, or a name in the default folder.

    Raises:
        RunsError: There is no run.
    """
    path = below_home(named)
    if is_run(path):
        return path
    if named and "/" not in named and is_run(default_folder() / named):
        return default_folder() / named
    if is_experiment(path):
        raise RunsError(f"RUN is {shown(named)}, an experiment; its runs are the folders in {path / 'runs'}.")
    raise RunsError(
        f"RUN is {shown(named)}; it must be the folder of a run, or the name of one in {default_folder()}"
        f"{closest(named, _names())}."
    )


def run_named(named: str) -> Run:
    """The run that RUN names.

    Raises:
        RunsError: There is none.
    """
    return read_run(run_dir(named))


def bytes_on_disk(path: Path) -> int:
    """What a file or folder takes on its disk: holes of sparse files do not count, and hard links count once.

    Links are not followed. What cannot be looked at counts as nothing.
    """
    seen: dict[tuple[int, int], int] = {}
    for entry in _below(path):
        try:
            status = os.lstat(entry)
        except OSError:
            continue
        seen[status.st_dev, status.st_ino] = status.st_blocks * BLOCK
    return sum(seen.values())


def _below(path: Path) -> Iterator[str]:
    """A path and everything in it."""
    yield str(path)
    for folder, folders, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *files))  # noqa: PTH118  200 runs of files


def _names() -> list[str]:
    try:
        return sorted(entry.name for entry in default_folder().iterdir())
    except OSError:
        return []


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or "it cannot be a path"
