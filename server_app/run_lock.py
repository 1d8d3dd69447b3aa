"""One process writes a run's folder at a time: a lock that the kernel frees when its process ends, however it ends."""

import contextlib
import fcntl
import json
import os
import socket
import time
from datetime import datetime
from logging import WARNING
from pathlib import Path
from types import TracebackType

from flwr.common import log

from config.run_config import ConfigError

FILE = ".lock"
PATIENCE = 3.0  # seconds: a killed process keeps the lock until the kernel has freed its memory


class RunLock:
    """Holds at most one run's folder, from `take` to the end of the block.

    The descriptor is closed in every program that this process starts, so none of these keeps the lock.
    """

    def __init__(self) -> None:
        self._file: int | None = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)  # while it is still ours
            os.close(self._file)
            self._file = None

    def take(self, run_dir: Path) -> None:
        """Take the lock of a folder that exists.

        Raises:
            ConfigError: Another process holds it, or its file cannot be opened.
        """
        path = run_dir / FILE
        file = open_lock(path)
        if not wait_for(file, path, PATIENCE):
            holder = holder_of(file)
            os.close(file)
            raise ConfigError(
                f"run config: {run_dir} is in use by {holder}; wait until that run ends, or end that process, then"
                " start this one again."
            )
        self._file = file
        host, _ = _written(file)
        if host not in ("", socket.gethostname()):
            log(
                WARNING,
                "%s was last in use by %s, which did not end by itself: make sure that it no longer runs, since not"
                " every network file system passes locks on to other machines.",
                run_dir,
                holder_of(file),
            )
        sign(file)


def is_in_use(run_dir: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    try:
        file = os.open(run_dir / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def open_lock(path: Path) -> int:
    """A descriptor of a lock's file, which this creates.

    Raises:
        ConfigError: It cannot be opened.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be opened ({error.strerror}); it must be a file that you may write, or absent."
        ) from None


def wait_for(file: int, path: Path, patience: float = PATIENCE) -> bool:
    """Whether the lock is ours after at most `patience` seconds, or there are no locks on this file system."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        except OSError as error:
            log(
                WARNING,
                "%s cannot be locked (%s): make sure yourself that no other process resumes this run.",
                path,
                error.strerror,
            )
            return True
        else:
            return True


def _written(file: int) -> tuple[str, str]:
    """Host of the process that wrote the lock's file, and what to call the process; empty if nobody did."""
    try:
        about = json.loads(os.pread(file, 1000, 0))
        host, pid, since = (str(about[key]) for key in ("host", "pid", "since"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "", ""
    return host, f"process {pid} on {host} since {since}"


def sign(file: int) -> None:
    """Write down who holds the lock, for those who wait."""
    about = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with contextlib.suppress(OSError):  # on a full disk the lock holds without its holder's name
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(about).encode() + b"\n", 0)


def holder_of(file: int) -> str:
    """The process that signed, in words."""
    return _written(file)[1] or "another process"
