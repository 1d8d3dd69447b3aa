"""One start works in an experiment's folder at a time, and not before all that the last one started is gone."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.errors import ExperimentError
from server_app.run_lock import holder_of, open_lock, sign, wait_for

FILE = ".lock"
SOON, PATIENCE = 1.0, 30.0  # seconds before a word, and in all


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None], patience: float = PATIENCE) -> Iterator[int]:
    """Hold the lock of a folder that exists.

    Args:
        folder: The experiment's.
        say: Is told if there is something to wait for.
        patience: Seconds.

    Yields:
        Its descriptor. The lock is free when all processes that have it open have ended; `subprocess` passes it on to
        those that are started with it in `pass_fds`, and to no others.

    Raises:
        ExperimentError: Another start holds it for longer than `patience`.
        ConfigError: Its file cannot be opened.
    """
    path = folder / FILE
    file = open_lock(path)
    try:
        if not wait_for(file, path, min(SOON, patience)):
            say("Waiting for the processes of the last start to end.")
            if not wait_for(file, path, patience - SOON):
                raise ExperimentError(
                    f"{folder} is in use by {holder_of(file)}, or by what that started; wait until they end, or end"
                    " them, then start again."
                )
        sign(file)
        yield file
    finally:
        os.close(file)
