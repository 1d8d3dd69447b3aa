"""Transition matrices, T[i, j] = P(given label j | true class i): where one comes from, and its inverse.

The server gets the matrix, clients compute with it.
"""

import math
from pathlib import Path

import numpy as np

from config.method_data import ESTIMATE, PUBLISHED, problem_of_transition
from config.run_config import ConfigError
from data.noise.published import CONFUSION
from data.release import Release

SUM_TOLERANCE = 1e-3  # of a row in a file, so that three decimals are enough
LISTS = ("clean_train", "clean_val")  # never clean test, whose labels are only for scoring
LARGEST_CONDITION = 1e6  # beyond it, float32 losses through the inverse have no correct digit left


def transition_from_counts(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """The matrix that counts suggest.

    Args:
        counts: (C, C) numbers of images by true class (rows) and given label.
        smoothing: Added to each of them.

    Returns:
        (C, C) float64, rows of sum 1.

    Raises:
        ValueError: A class without images, and no smoothing.
    """
    smoothed = counts + float(smoothing)
    sums = smoothed.sum(axis=1, keepdims=True)
    if (empty := np.flatnonzero(sums == 0)).size:
        raise ValueError(f"no image of class {empty[0]} was counted; smoothing must be above 0")
    matrix: np.ndarray = smoothed / sums
    return matrix


def read_transition(path: Path, num_classes: int | None = None) -> np.ndarray:
    """A matrix from a text file: C lines of C numbers, separated by blanks or commas; empty lines are skipped.

    Args:
        path: Of the file.
        num_classes: C; None: as many as there are lines.

    Returns:
        (C, C) float64, rows of sum 1: they may be off by `SUM_TOLERANCE` in the file.

    Raises:
        ConfigError: No such file, or one that holds no such matrix; the line that is wrong is named.
    """
    form = f"{num_classes} lines of {num_classes} numbers" if num_classes else "as many lines as each has numbers"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; it must be a text file of {form}.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; it must be a text file of {form}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; it must be a text file of {form}.") from None
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    num_classes = num_classes or len(filled)
    rows = [_row(f"{path}, line {number}", line, num_classes) for number, line in filled]
    if not rows or len(rows) != num_classes:
        raise ConfigError(f"{path} has {len(rows)} lines of numbers; it must have {num_classes}, one for each class.")
    matrix = np.array(rows)
    normalized: np.ndarray = matrix / matrix.sum(axis=1, keepdims=True)
    return normalized


def _row(where: str, line: str, num_classes: int) -> list[float]:
    words = line.replace(",", " ").split()
    if len(words) != num_classes:
        raise ConfigError(f"{where} has {len(words)} numbers; it must have {num_classes}, one for each class.")
    row = []
    for word in words:
        try:
            row.append(float(word))
        except ValueError:
            row.append(math.nan)
        if not 0 <= row[-1] < math.inf:
            raise ConfigError(f"{where} has {word!r}; it must be a number from 0 to 1.")
    if abs(sum(row) - 1) > SUM_TOLERANCE:
        raise ConfigError(f"{where} sums to {sum(row):g}; it must sum to 1, give or take {SUM_TOLERANCE:g}.")
    return row


def invert_transition(matrix: np.ndarray) -> np.ndarray:
    """T^-1, (C, C) float64.

    Raises:
        ConfigError: T has none, or one that magnifies rounding beyond use.
    """
    condition = np.linalg.cond(matrix)
    if not condition <= LARGEST_CONDITION:
        raise ConfigError(
            "run config: 'method-args': the transition matrix is singular, or nearly so: some classes get their labels"
            " in the same proportions; correction must be 'forward' with it."
        )
    inverse: np.ndarray = np.linalg.inv(matrix)
    return inverse


def estimate_transition(transition: str, smoothing: float, release: Release) -> np.ndarray:
    """The matrix that `transition` names, for the classes of `release`.

    Returns:
        (C, C) float64; T[i, j] = P(given label j | true class i), rows of sum 1.

    Raises:
        ConfigError: The release has no images with both labels, or not the published classes; a class has no counts and
            smoothing is 0; or the file holds no such matrix.
        DataError: Lists that cannot be read.
    """
    if problem := problem_of_transition(transition, release):
        raise ConfigError(problem)
    if transition == ESTIMATE:
        return _smoothed(count_pairs(release), smoothing)
    if transition == PUBLISHED:
        return published_transition(smoothing)
    return read_transition(Path(transition).expanduser(), len(release.class_names))


def published_transition(smoothing: float) -> np.ndarray:
    """The matrix of the real release's counts, (14, 14) float64."""
    return _smoothed(CONFUSION, smoothing)


def _smoothed(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """`transition_from_counts`, with a ConfigError."""
    try:
        return transition_from_counts(counts, smoothing)
    except ValueError as error:
        raise ConfigError(f"run config: 'method-args' has smoothing={smoothing:g}, but {error}.") from None


def count_pairs(release: Release) -> np.ndarray:
    """Images of clean train and clean val with both labels: (C, C) int64 by clean (rows) and noisy label.

    Raises:
        DataError: Lists that cannot be read.
    """
    num_classes = len(release.class_names)
    _, clean, noisy = release.double_labelled(LISTS)
    return np.bincount(clean * num_classes + noisy, minlength=num_classes**2).reshape(num_classes, num_classes)
