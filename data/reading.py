"""Files of datasets as bytes, of a length that fits into memory."""

from pathlib import Path

from data.errors import DataError
from data.text import printable


def read_at_most(path: Path, most: int) -> bytes:
    """A file's bytes.

    Args:
        path: A file, or a link to one; not a pipe, which one would wait for.
        most: How many bytes it may have.

    Raises:
        DataError: It is missing, no file, too long, or cannot be read.
    """
    try:
        found = "" if path.is_file() else "not a file" if path.exists() else "missing"
        data = b""
        if not found:
            with path.open("rb") as file:
                data = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise DataError(f"{str(path)!r} cannot be a path.") from None
    if found:
        raise DataError(f"{printable(path)} is {found}; it must be a file as published.")
    if len(data) > most:
        raise DataError(f"{path} is longer than {most:,} bytes; it must be a file as published.")
    return data
