"""Files that a crash or a power failure leaves either complete or absent."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+")
ROUND = re.compile(r"round-(\d{5}|[1-9]\d{5,})\.safetensors")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is flushed and replaces it if the block succeeds, and is deleted otherwise.

    The block must write it. A process that is killed leaves it behind: see `leftovers`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves either the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def leftovers(folder: Path) -> Iterator[tuple[Path, str]]:
    """The temporary files of `replacing` in a folder, and the name that each was to get; some may be in use."""
    for path in sorted(folder.glob(".*")):
        if (found := TEMPORARY.fullmatch(path.name)) and not path.is_dir():
            yield path, found["name"]


def round_path(folder: Path, server_round: int) -> Path:
    """Where the state after a round is kept: ``round-00007.safetensors``."""
    return folder / f"round-{server_round:05}.safetensors"


def round_of(name: str) -> int | None:
    """The round that a file's name stands for; None if `round_path` makes no such name."""
    return int(found[1]) if (found := ROUND.fullmatch(name)) and int(found[1]) else None


def round_files(folder: Path) -> dict[int, Path]:
    """What `round_path` names in a folder, in the order of rounds, whatever it is; other entries are left out.

    A folder that is not there, or that nobody may look into, has none.
    """
    found = {}
    with contextlib.suppress(OSError):
        found = {number: path for path in folder.iterdir() if (number := round_of(path.name))}
    return dict(sorted(found.items()))
