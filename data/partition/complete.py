"""A partition is complete and disjoint: each image of the list has one client, and each client has an image."""

import numpy as np


def problem_of(rows: np.ndarray, sizes: np.ndarray, num_images: int) -> str:
    """What is wrong with a partition, as the end of a sentence about its file; empty if nothing is.

    Args:
        rows: Rows of the training list, client by client.
        sizes: How many of them each client holds.
        num_images: Length of the list.
    """
    for name, array in (("rows", rows), ("sizes", sizes)):
        if array.ndim != 1 or array.dtype != np.int64:
            return f"has '{name}' of shape {array.shape} and type {array.dtype}, which must be one row of int64"
    if (few := np.flatnonzero(sizes < 1)).size:
        return f"gives client {few[0]} {sizes[few[0]]:,} images, of which each client must have at least 1"
    if sum(sizes.tolist()) != len(rows):  # whose sum may not fit int64
        return f"has {len(rows):,} rows for clients that hold {sum(sizes.tolist()):,} images"
    if (out := np.flatnonzero((rows < 0) | (rows >= num_images))).size:
        return (
            f"has row {rows[out[0]]} for client {_holder(out[0], sizes)}, but the list has rows 0 to {num_images - 1:,}"
        )
    counts = np.bincount(rows, minlength=num_images)
    if (twice := np.flatnonzero(counts > 1)).size:
        one, other = (_holder(place, sizes) for place in np.flatnonzero(rows == twice[0])[:2])
        to = f"client {one} twice" if one == other else f"clients {one} and {other}"
        return f"gives {len(twice):,} images to more than one place, the first, row {twice[0]}, to {to}"
    if (left := np.flatnonzero(counts == 0)).size:
        return f"gives {len(left):,} of {num_images:,} images to no client, the first in row {left[0]}"
    return ""


def _holder(place: np.intp, sizes: np.ndarray) -> int:
    """The client that holds the row at `place`."""
    return int(np.searchsorted(np.cumsum(sizes), place, side="right"))
