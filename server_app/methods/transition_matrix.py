"""The transition matrix that the server tells clients: counted on its images, published, or read from a file."""

from pathlib import Path

import numpy as np

from config import ConfigError
from data.label_noise import CONFUSION
from data.release import Release
from transition import TransitionSource, read_transition, transition_from_counts

LISTS = ("clean_train", "clean_val")  # never clean test, whose labels are for the score alone


def estimate_transition(source: TransitionSource, release: Release) -> np.ndarray:
    """The matrix that `source` names, for the classes of `release`.

    Returns:
        (C, C) float64; T[i, j] = P(given label j | true class i), rows of sum 1.

    Raises:
        ConfigError: The release has no images with both labels, or not the published classes; counts leave a class out
            that smoothing does not make up for; or the file holds no such matrix.
        DataError: Lists that cannot be read.
    """
    num_classes = len(release.class_names)
    if source.transition == "estimate":
        counts = _count(release, num_classes)
    elif source.transition == "clothing1m":
        counts = CONFUSION
        if len(counts) != num_classes:
            raise ConfigError(
                f"run config: 'method-args' has transition='clothing1m', whose matrix is of {len(counts)} classes, but"
                f" {release.root} has {num_classes}; transition must be estimate or the path of a matrix."
            )
    else:
        return read_transition(Path(source.transition).expanduser(), num_classes)
    try:
        return transition_from_counts(counts, source.smoothing)
    except ValueError as error:
        raise ConfigError(f"run config: 'method-args' has smoothing={source.smoothing:g}, but {error}.") from None


def _count(release: Release, num_classes: int) -> np.ndarray:
    """(C, C) int64: images with both labels by clean (rows) and noisy label."""
    _, clean, noisy = release.double_labelled(LISTS)
    if not len(clean):
        raise ConfigError(
            f"run config: 'method-args' has transition='estimate', but no image of clean train or clean val in"
            f" {release.root} carries both labels; transition must be clothing1m or the path of a matrix."
        )
    return np.bincount(clean * num_classes + noisy, minlength=num_classes**2).reshape(num_classes, num_classes)
