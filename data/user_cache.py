"""Where this app keeps what it can always recreate: below the user's cache folder."""

import os
from pathlib import Path

from data.errors import DataError


def cache_folder(*parts: str) -> Path:
    """``$XDG_CACHE_HOME/clothing1m-fl`` (``~/.cache/clothing1m-fl`` without the variable) and `parts` below it."""
    return below_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache").joinpath("clothing1m-fl", *parts)


def below_home(path: str) -> Path:
    """A path that may start with ``~``.

    Raises:
        DataError: There is no such user, or this one has no home folder, as in a container that runs under any number.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        if path.removeprefix("~")[:1] not in ("", "/"):
            raise DataError(f"{path} cannot be found: there is no user {path[1:].split('/')[0]!r}.") from None
        raise DataError(f"{path} cannot be found: this user has no home folder; set HOME to one.") from None
