"""Files whose names differ from those of their keys in case or suffix alone, as copies from some machines have them."""

import os
from pathlib import Path

from data.images.formats import SUFFIXES

IMAGES = tuple(suffix.encode() for suffixes in SUFFIXES.values() for suffix in suffixes)


def is_image(name: bytes) -> bool:
    """Whether a file looks like an image by its name."""
    return name.lower().endswith(IMAGES)


def loosely(path: bytes) -> bytes:
    """A path without its suffix and in lower case: what is left when names are compared loosely."""
    folder, slash, name = path.rpartition(b"/")
    return (folder + slash + (name.rpartition(b".")[0] or name)).lower()


def instead_of(path: Path) -> str:
    """What is there instead of a missing image, as part of a sentence; empty if there is nothing like it."""
    wanted = loosely(os.fsencode(path.name))
    try:
        names = sorted(os.listdir(os.fsencode(path.parent)))  # noqa: PTH208 (bytes)
    except OSError:
        return ""
    found = next((name for name in names if is_image(name) and loosely(name) == wanted), None)
    return f"{path.with_name(os.fsdecode(found))} is there instead; {MATCH}" if found else ""


MATCH = (
    "names must be those of the keys in case and suffix, and `python -m data match` makes a release of links in which"
    " they are"
)
