"""Who gets which images of a release that several clients share, and which labels."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from config.named import parse_args
from config.run_config import RunConfig
from data.errors import DataError
from data.noise.synthetic import corrupt
from data.partition.file import deal
from data.release import Release, Split, open_release, training_split

Deal = tuple[Path, str, int, int, str, str]
"""All that decides it: the release, the training list, the number of clients, the seed, the scheme, its arguments."""


@lru_cache(maxsize=4)
def release_at(root: Path) -> Release:
    return open_release(root)


@lru_cache(maxsize=4)
def partition_of(root: Path, train_split: str, count: int, seed: int, scheme: str, args: str) -> list[np.ndarray]:
    """For each client, (m,) int64 rows of the training list.

    Raises:
        DataError: What `data.partition.file.deal` refuses.
    """
    values = parse_args("partition-args", args)
    try:
        return deal(training_split(release_at(root), train_split), scheme, count, seed, **values)
    except DataError as error:
        given = f", 'partition-args' is {args!r}" if args else ""
        raise DataError(f"run config: 'partition' is {scheme!r}{given}: {error}") from None


@lru_cache(maxsize=4)
def digest_of(*deal: *Deal) -> str:
    """16 hex digits of a hash of the training list, its labels and who gets which part."""
    split = training_split(release_at(deal[0]), deal[1])
    seen = hashlib.sha256(b"\n".join(split.keys.tolist()))  # not the array's bytes, whose width depends on other lists
    for array in (split.labels, *partition_of(*deal)):
        seen.update(len(array).to_bytes(8, "little") + array.astype("<i8").tobytes())
    return seen.hexdigest()[:16]


def with_label_noise(split: Split, config: RunConfig, classes: int, client: int, clients: int) -> Split:
    """What a client holds, with the labels that it sees.

    Args:
        split: With the release's.
        config: The run's.
        classes: C.
        client: Its number, from 0.
        clients: How many there are.

    Raises:
        DataError: What `data.noise.synthetic.corrupt` refuses.
    """
    args = parse_args("label-noise-args", config.label_noise_args)
    try:
        labels = corrupt(split.labels, config.label_noise, classes, client, clients, config.seed, **args)
    except DataError as error:
        given = f", 'label-noise-args' is {config.label_noise_args!r}" if args else ""
        raise DataError(f"run config: 'label-noise' is {config.label_noise!r}{given}: {error}") from None
    return split.with_labels(labels)
