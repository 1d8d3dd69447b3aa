"""``set-aside/`` in a run's folder: what resuming found damaged or makes obsolete. Nothing in it is ever deleted."""

import os
import shutil
from pathlib import Path

from config.run_config import ConfigError

FOLDER = "set-aside"


def copy_aside(path: Path) -> Path:
    """Copy a file of a run's folder to ``set-aside/<name>.<n>`` and return that; it is on disk then."""
    target = _free_name(path.parent, path.name)
    shutil.copyfile(path, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return target


def move_aside(path: Path, run_dir: Path) -> Path:
    """Move anything that is in a run's folder to ``set-aside/<name>.<n>`` and return that."""
    return path.rename(_free_name(run_dir, path.name))


def _free_name(run_dir: Path, name: str) -> Path:
    folder = run_dir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); it must be a folder, or absent.") from None
    taken = {entry.name for entry in folder.iterdir()}
    return folder / next(unique for n in range(1, len(taken) + 2) if (unique := f"{name}.{n}") not in taken)
