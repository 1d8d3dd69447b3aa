"""What tests of caches share: a small bound, and counts of what is decoded, written and in use."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from data.images import decoded_cache
from data.images.loading import load_images
from data.release import Release

SIZE = 16
CLIENTS = 10
BYTES = 12 * SIZE * SIZE * 3  # of one client's twelve images
BOUND = 3 * BYTES  # 30 %


def counted_decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each decoding will have had, in order."""
    counts: list[int] = []

    def counting(release: Release, keys: np.ndarray, *args: object, **kwargs: object) -> np.ndarray:
        counts.append(len(keys))
        return load_images(release, keys, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(decoded_cache, "load_images", counting)
    return counts


def counted_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each file that will have been written, in order."""
    sizes: list[int] = []
    allocate = os.posix_fallocate

    def counting(descriptor: int, offset: int, length: int) -> None:
        sizes.append(length)
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", counting)
    return sizes


def in_use(folder: Path) -> int:
    """Bytes of the files that are there, and of those that this process still maps although they are deleted."""
    there = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".pixels", ".filling"))
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    gone = {
        match[3]: int(match[2], 16) - int(match[1], 16)
        for match in re.finditer(rf"^(\w+)-(\w+) .* ({re.escape(str(folder))}\S* \(deleted\))$", maps, re.MULTILINE)
    }
    return there + sum(gone.values())


def grow_old(folder: Path) -> None:
    """As if whatever is there had last been used long ago."""
    for number, path in enumerate(sorted(folder.glob("*.pixels"))):
        os.utime(path, (number + 1, number + 1))
