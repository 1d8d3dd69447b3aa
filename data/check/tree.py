"""Which image files are where their keys say, and which belong to no key."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data.check.findings import Findings
from data.images.formats import SUFFIXES
from data.layout.finding import LEAVES, TEXT_FOLDERS
from data.layout.key_files import PREFIX, show

IMAGES = tuple(suffix.encode() for suffixes in SUFFIXES.values() for suffix in suffixes)


def check_tree(root: Path, images: Path, lists: Mapping[str, np.ndarray], findings: Findings) -> np.ndarray:
    """Walk the image folders once, which is much faster than looking up a million files.

    Args:
        root: The release.
        images: The folder of ``0`` to ``9``.
        lists: Keys of each list.
        findings: Gains missing images, images at the wrong folder level, stray and unlisted files.

    Returns:
        The keys whose files are there, each once, in byte order.
    """
    keys = np.unique(np.concatenate(list(lists.values())))
    wanted = {key.removeprefix(PREFIX): key for key in keys.tolist()}
    present: set[bytes] = set()
    astray: dict[bytes, bytes] = {}
    for path in _walk(images, root):
        name = path.rpartition(b"/")[2]
        if path in wanted:
            present.add(wanted[path])
        elif name.startswith(b"._") or name == b".DS_Store":
            findings.add("stray file", show(path), "left by macOS; ignored")
        elif name.lower().endswith(IMAGES):
            astray[name] = path
    for key in keys.tolist():
        if key in present:
            continue
        name = key.rpartition(b"/")[2]
        if name in astray:
            findings.add("wrong folder level", show(key), f"found at {images / os.fsdecode(astray.pop(name))}")
        else:
            findings.add("missing image", show(key), f"must be at {images / os.fsdecode(key.removeprefix(PREFIX))}")
    for path in astray.values():
        findings.add("unlisted file", show(path), "in no list")
    return np.array(sorted(present), keys.dtype)


def _walk(images: Path, root: Path) -> Iterator[bytes]:
    """All files below the image folders, and those a level too high, relative to `images`."""
    top = os.fsencode(images)
    for folder, folders, files in os.walk(top):
        folders.sort()
        if folder == top and images == root:  # the text files lie here too
            folders[:] = [name for name in folders if os.fsdecode(name) not in TEXT_FOLDERS]
        prefix = folder[len(top) + 1 :]
        for name in sorted(files):
            yield prefix + b"/" + name if prefix else name
    if images != root:
        for leaf in sorted(LEAVES):  # tars that were unpacked beside images/ instead of in it
            for folder, _, files in os.walk(os.fsencode(root / leaf)):
                for name in sorted(files):
                    yield os.path.relpath(os.path.join(folder, name), top)  # noqa: PTH118 (bytes)
