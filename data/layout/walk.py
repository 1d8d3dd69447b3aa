"""All files below a folder, through links as well, as the reader of a release finds them."""

import os
from collections.abc import Callable, Iterator

Place = tuple[int, int]  # device and inode


def files_below(top: bytes, enter: Callable[[bytes], bool] = lambda _: True) -> Iterator[bytes]:
    """Regular files and links to them, in byte order, relative to `top`; folders that cannot be read have none.

    A link to a folder is a folder, unless it leads to one that it is in.

    Args:
        top: Where to start; it may be missing.
        enter: Whether to look into a folder, given its path below `top`.
    """
    return _below(top, b"", enter, ())


def _below(folder: bytes, prefix: bytes, enter: Callable[[bytes], bool], parents: tuple[Place, ...]) -> Iterator[bytes]:
    try:
        status = os.stat(folder)  # noqa: PTH116 (bytes)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    place = (status.st_dev, status.st_ino)
    if place in parents:
        return
    for entry in found:
        try:
            if entry.is_file():
                yield prefix + entry.name
            elif entry.is_dir() and enter(prefix + entry.name):
                yield from _below(entry.path, prefix + entry.name + b"/", enter, (*parents, place))
        except OSError:
            continue
