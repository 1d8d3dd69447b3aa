"""Where this app keeps what it can always recreate: below the user's cache folder."""

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """``$XDG_CACHE_HOME/clothing1m-fl`` (``~/.cache/clothing1m-fl`` without the variable) and `parts` below it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().joinpath("clothing1m-fl", *parts)
