"""A pack with many keys and few pictures, for measurements that depend on the number of images, not their content."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.data.full_size import jpeg
from data.layout.index import Index
from data.layout.writer import draw_keys
from data.pack_writer import Packing, write_pack
from data.release import Release
from data.sample import NAMES

TEST_IMAGES = len(NAMES)  # and as few in the two other clean lists


class FewPictures:
    """A store that has the same picture under all keys of a label."""

    def __init__(self, pictures: Mapping[bytes, bytes]) -> None:
        """Key to bytes of an image file."""
        self._pictures = pictures

    def encoded(self, key: bytes) -> bytes:
        return self._pictures[bytes(key)]

    def place(self, key: bytes) -> str:
        raise NotImplementedError

    def mark(self, keys: np.ndarray) -> bytes:
        raise NotImplementedError

    def check_presence(self, keys: np.ndarray, name: str) -> None:
        """Nothing can be missing."""


def write_repeated(out: Path, images: int, image_size: int, seed: int = 1) -> None:
    """Write the pack: a second for 20,000 images.

    Args:
        out: The file.
        images: In noisy train, with labels in turn, so that any client has several of them.
        image_size: Side in pixels of the pictures, one for each label.
        seed: The same seed gives the same file.
    """
    rng = np.random.default_rng([seed, 0])
    counts = (images, TEST_IMAGES, TEST_IMAGES, TEST_IMAGES)
    keys = np.sort(np.array(draw_keys(sum(counts), rng), dtype=np.bytes_))
    labels = np.concatenate([np.arange(count) % len(NAMES) for count in counts]).astype(np.int16)
    none = np.full(len(labels), -1, np.int16)
    in_train = np.arange(len(labels)) < images
    index = Index(keys, np.where(in_train, labels, none), np.where(in_train, none, labels), labels, counts, "")
    files = [jpeg(label, image_size, np.random.default_rng([seed, 1, label])) for label in range(len(NAMES))]
    store = FewPictures({key: files[label] for key, label in zip(keys.tolist(), labels.tolist(), strict=True)})
    write_pack(Release(out, NAMES, out, store, index), out, Packing())
