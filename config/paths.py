"""Where runs are written, and whether that can work."""

import os
from pathlib import Path

from config.errors import ConfigError
from config.run_config import RunConfig
from data.errors import DataError
from data.user_cache import below_home

DEFAULT_OUTPUT = "~/clothing1m-fl-runs"


def output_folder(config: RunConfig) -> Path:
    """Where runs are written.

    Raises:
        DataError: The user has no home folder.
    """
    return below_home(config.output_dir or DEFAULT_OUTPUT)


def check_output(config: RunConfig) -> None:
    """Check, before anything is computed, that a run's folder can be created.

    Raises:
        ConfigError: It cannot.
    """
    folder = output_folder(config).absolute()
    parent = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        why = "writable" if parent.is_dir() else "a folder"
        raise ConfigError(
            f"run config: 'output-dir' is '{folder}', where no folder can be created ({parent} is not {why}); it must"
            " be a folder that you may write to."
        )


def problem_of_output(config: RunConfig) -> str | None:
    """Why a new run cannot be written, in one sentence; None if it can."""
    try:
        check_output(config)
        taken = output_folder(config) / config.run_name
        if config.run_name and not config.resume and (taken.exists() or taken.is_symlink()):
            return f"run config: 'run-name' is {config.run_name!r}, but {taken} already exists; choose another name."
    except (ConfigError, DataError) as error:
        return str(error)
    except OSError as error:
        return f"run config: 'output-dir' is {config.output_dir!r}, which cannot be looked at ({error.strerror})."
    return None
