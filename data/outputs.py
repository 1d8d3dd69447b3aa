"""What a command may write over: a file where it writes a file, a folder where it writes a folder, or nothing yet.

Files are written beside their place and then moved there. As root, that replaces a device by a file, for everybody on
the machine. Every path that a user gives to be written passes here.
"""

import contextlib
import fcntl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data.errors import DataError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def check_output(path: Path, name: str = "--out", wanted: str = "a file") -> None:
    """Refuse whatever is at `path`, or where a link there leads, and is not `wanted`.

    Args:
        path: Where something will be written.
        name: What the user calls it, such as ``--out``.
        wanted: ``a file`` or ``a folder``.

    Raises:
        DataError: Something else is there, or it cannot be a path at all.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{name} is {path}, which cannot be written: {error.strerror}.") from None
    except ValueError:
        raise DataError(f"{name} is {str(path)!r}, which cannot be a path.") from None
    found = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no file")
    if found != wanted:
        raise DataError(f"{name} is {path}, which is {found}; it must be {wanted}, or a path where nothing is yet.")


def check_empty(folder: Path) -> None:
    """Refuse a folder that has anything in it.

    Raises:
        DataError: It has, or it cannot be read.
    """
    try:
        is_full = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}; it must be another folder.") from None
    if is_full:
        raise DataError(f"{folder} exists already; it must be a folder that does not exist yet, or an empty one.")


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Whatever the system has against writing `out` becomes one sentence.

    Raises:
        DataError: The block has raised OSError, mostly because a disk is full.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{out} cannot be written: {reason}; there must be enough space, and permission.") from None


def write_alone(lock: BinaryIO, out: Path) -> None:
    """Refuse to write `out` while another process does, which holds the same lock until it ends.

    Args:
        lock: A file beside `out`, open as long as this process writes.
        out: What is written.

    Raises:
        DataError: Another process is at it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"{out} is being written by another process; wait for it, or give another --out.") from None
