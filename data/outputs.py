"""What a command may write over: a file where it writes a file, a folder where it writes a folder, or nothing yet.

Files are written beside their place and then moved there. As root, that replaces a device by a file, for everybody on
the machine. Every path that a user gives to be written passes here.
"""

import stat
from pathlib import Path

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
