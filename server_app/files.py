"""The run's folder, and writing files that are either complete or absent."""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from config.run_config import ConfigError, RunConfig

DEFAULT_OUTPUT = "~/clothing1m-fl-runs"


def output_folder(config: RunConfig) -> Path:
    """Where runs are written."""
    return Path(config.output_dir or DEFAULT_OUTPUT).expanduser()


def create_run_dir(config: RunConfig) -> Path:
    """Create ``<output-dir>/<run-name>`` and return its absolute path; an existing run is never overwritten.

    Raises:
        ConfigError: It already exists, or cannot be created.
    """
    parent = output_folder(config)
    name = config.run_name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 1000):
        unique = name if attempt == 1 else f"{name}_{attempt}"
        try:
            (parent / unique).mkdir(parents=True)
        except FileExistsError:
            if config.run_name or not parent.is_dir():
                raise ConfigError(
                    f"run config: 'run-name' is {name!r}, but {parent / name} already exists; choose another name."
                ) from None
        except OSError as error:
            raise ConfigError(
                f"run config: 'output-dir' is '{parent}', where no folder can be created ({error.strerror}); it must be"
                " a folder that you may write to."
            ) from None
        else:
            return (parent / unique).resolve()
    raise ConfigError(f"run config: 'output-dir' is '{parent}', which already has 999 runs from this second.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it if the block succeeds, and is deleted otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves either the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
