"""The run's folder: where it is, how it begins, and what is tidied up before a run resumes in it."""

import contextlib
from datetime import datetime
from logging import WARNING
from pathlib import Path

from flwr.common import log

from config.paths import output_folder as output_folder
from config.run_config import ConfigError, RunConfig
from data.whole_files import leftovers, round_of
from server_app.run_record import FILE as RUN_RECORD
from server_app.set_aside import move_aside

CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"  # in it, beside one file per round
CLIENT_MODELS = "client-models"  # see `server_app.client_models`
# What a run writes, and reads or replaces when it resumes.
FILES = (
    "config.toml", RUN_RECORD, "metrics.jsonl", "clients.jsonl", "noisy-clients.json", "failures.jsonl",
    "resumes.jsonl", "model.safetensors", "accuracy.png", "confusion.png", "confusion.npz",
    "prediction-changes.png",
)  # fmt: skip
FOLDERS = (CHECKPOINTS, CLIENT_MODELS, "state", "tensorboard")


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


def tidy(run_dir: Path) -> None:
    """Make a run's folder fit for a process to resume in, which holds its lock.

    Temporary files of processes that are gone are deleted. A folder where a file belongs, or the reverse, is set aside.

    Raises:
        ConfigError: Something cannot be set aside.
    """
    for folder in (run_dir, run_dir / CHECKPOINTS, run_dir / CLIENT_MODELS):
        whole = folder.name == CLIENT_MODELS  # nobody else's are there
        ours = [path for path, name in leftovers(folder) if whole or name in (*FILES, BEST) or round_of(name)]
        for path in (*ours, folder / ".best"):  # as earlier versions named it
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    for names, fits in ((FILES, Path.is_file), (FOLDERS, Path.is_dir)):
        for path in (run_dir / name for name in names):
            if (path.exists() or path.is_symlink()) and not fits(path):
                log(
                    WARNING,
                    "%s is no %s: it is now %s.",
                    path,
                    "file" if names is FILES else "folder",
                    move_aside(path, run_dir),
                )
