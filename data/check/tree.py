"""Which image files are where their keys say, and which belong to no key."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data.check.findings import Findings
from data.layout.alike import MATCH, is_image, loosely
from data.layout.finding import LEAVES, TEXT_FOLDERS
from data.layout.key_files import PREFIX, show
from data.layout.walk import files_below


def check_tree(root: Path, images: Path, lists: Mapping[str, np.ndarray], findings: Findings) -> np.ndarray:
    """Walk the image folders once, which is much faster than looking up a million files.

    Args:
        root: The release.
        images: The folder of ``0`` to ``9``.
        lists: Keys of each list.
        findings: Gains missing images, images under a name of another case or suffix, or at the wrong folder level,
            stray and unlisted files.

    Returns:
        The keys whose files are there, each once, in byte order.
    """
    keys = np.unique(np.concatenate(list(lists.values())))
    wanted = {key.removeprefix(PREFIX): key for key in keys.tolist()}
    present: set[bytes] = set()
    astray: dict[bytes, bytes] = {}
    alike: dict[bytes, bytes] = {}
    for path in _walk(images, root):
        name = path.rpartition(b"/")[2]
        if path in wanted:
            present.add(wanted[path])
        elif name.startswith(b"._") or name == b".DS_Store":
            findings.add("stray file", show(path), "left by macOS; ignored")
        elif is_image(name):
            astray[name] = path
            alike[loosely(path)] = path
    for key in keys.tolist():
        if key in present:
            continue
        name = key.rpartition(b"/")[2]
        if other := alike.get(loosely(key.removeprefix(PREFIX))):
            astray.pop(other.rpartition(b"/")[2], None)
            findings.add("other case or suffix", show(key), f"found at {images / os.fsdecode(other)}; {MATCH}")
        elif name in astray:
            findings.add("wrong folder level", show(key), f"found at {images / os.fsdecode(astray.pop(name))}")
        else:
            findings.add("missing image", show(key), f"must be at {images / os.fsdecode(key.removeprefix(PREFIX))}")
    for path in astray.values():
        findings.add("unlisted file", show(path), "in no list")
    return np.array(sorted(present), keys.dtype)


def _walk(images: Path, root: Path) -> Iterator[bytes]:
    """All files below the image folders, and those a level too high, relative to `images`."""
    skipped = {os.fsencode(name) for name in TEXT_FOLDERS} if images == root else set()  # the text files lie here too
    yield from files_below(os.fsencode(images), lambda folder: folder not in skipped)
    if images != root:
        up = os.path.relpath(os.fsencode(root), os.fsencode(images))
        for leaf in sorted(LEAVES):  # tars that were unpacked beside images/ instead of in it
            for path in files_below(os.fsencode(root / leaf)):
                yield b"/".join((up, leaf.encode(), path))
