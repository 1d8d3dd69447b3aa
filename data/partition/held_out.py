"""Which of its own images a client holds out: it never trains on them, and is evaluated on them."""

import hashlib

import numpy as np

LEAST = 2  # images of a client that is to hold some out and train on the others


def held_out_count(images: int, fraction: float) -> int:
    """How many a client with so many images, `LEAST` or more, holds out: that share, at least one, and never all."""
    return min(max(1, round(fraction * images)), images - 1) if fraction else 0


def held_out(keys: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(n,) bool: which images are held out, those whose keys have the smallest hashes.

    The seed and the keys alone decide, so that a site, which has no number of its own, draws as the holder of a
    partition does, and no label has a say. An image more or less changes at most one other's part.

    Args:
        keys: (n,) bytes, of all images that the client has; n at least `LEAST`.
        fraction: From 0 to 0.5.
        seed: The run's.
    """
    out = np.zeros(len(keys), bool)
    if count := held_out_count(len(keys), fraction):
        prefix = f"{seed}/held out/".encode()
        hashes = b"".join(hashlib.sha256(prefix + key).digest()[:8] for key in keys.tolist())
        out[np.argsort(np.frombuffer(hashes, ">u8"), kind="stable")[:count]] = True
    return out
