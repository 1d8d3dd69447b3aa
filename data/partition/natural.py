"""The partition that a dataset brings along: each client holds whole groups, such as the photos of a site or a writer.

Source: the natural partitions of Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, whose clients are the
writers and users of their datasets. Where a run has fewer clients than there are groups, which LEAF does not cover,
groups are dealt by the rule of Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: the largest first, each to
the client that holds least so far. The largest client then holds at most 4/3 - 1/(3K) of what it would in the best deal
of whole groups to K clients.
"""

import heapq

import numpy as np

from data.errors import DataError
from data.partition.schemes import PARTITIONS, PURPOSE, Parts

NATURAL = "natural"
_INSTEAD = (
    "import the dataset with `--group` or `--groups`, or choose another partition, one of"
    f" {', '.join(PARTITIONS)}, file"
)


def natural(groups: np.ndarray | None, num_images: int, num_partitions: int, seed: int) -> Parts:
    """Whole groups to clients.

    With as many clients as groups, client k holds the k-th group in the order of their numbers. Each image needs a
    group: one without would have to be dealt to somebody who does not have it, or be left out.

    Args:
        groups: (n,) int32 group of each image, -1 where it is unknown; None if no image has one.
        num_images: n.
        num_partitions: K, at most the number of groups that these images belong to.
        seed: Decides the order of groups of equal size, and nothing else.

    Returns:
        For each client, (m,) int64 rows, sorted.

    Raises:
        DataError: There are no groups, or fewer than clients; or an image has none.
    """
    if num_partitions < 1:
        raise DataError(f"{num_partitions} partitions were asked for; it must be at least 1.")
    if seed < 0:
        raise DataError(f"the seed of a partition is {seed}; it must be at least 0.")
    if groups is None:
        raise DataError(f"these images belong to no groups, which partition '{NATURAL}' needs; {_INSTEAD}.")
    if alone := int((groups < 0).sum()):
        raise DataError(
            f"{alone:,} of {num_images:,} images belong to no group, and partition '{NATURAL}' deals whole groups;"
            f" {_INSTEAD}."
        )
    numbers, sizes = np.unique(groups, return_counts=True)
    if num_partitions > len(numbers):
        raise DataError(
            f"{num_partitions} partitions were asked for, but these images belong to {len(numbers)} groups, which"
            f" partition '{NATURAL}' does not divide; it must be at most {len(numbers)} (--clients, or num-supernodes)."
        )
    owner = np.arange(len(numbers))
    if num_partitions < len(numbers):
        owner = _dealt(sizes, num_partitions, np.random.default_rng([seed, PURPOSE]))
    clients = owner[np.searchsorted(numbers, groups)]
    order = np.argsort(clients, kind="stable")
    return np.split(order.astype(np.int64), np.cumsum(np.bincount(clients, minlength=num_partitions))[:-1])


def _dealt(sizes: np.ndarray, num_partitions: int, rng: np.random.Generator) -> np.ndarray:
    """(g,) int64 client of each group: the largest first, each to the client that holds least, the first of several."""
    shuffled = rng.permutation(len(sizes))
    owner = np.empty(len(sizes), np.int64)
    held = [(0, client) for client in range(num_partitions)]
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        images, client = held[0]
        owner[group] = client
        heapq.heapreplace(held, (images + int(sizes[group]), client))
    return owner
