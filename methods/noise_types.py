"""Three types of label noise (Xiao et al., CVPR 2015), and what images with both labels say about them.

With y the class of an image, ~y its given label and z the type of its noise,

    P(~y | y, z_0) = [~y = y]                     z_0: noise-free
    P(~y | y, z_1) = [~y != y] / (C - 1)          z_1: random, any other class
    P(~y | y, z_2) = Cm[~y, y]                    z_2: confusing, a class that is easily taken for y

Columns of Cm belong to clean classes and sum to 1, with zeros on the diagonal. Counted on images with both labels,
f[j] is the share of class y's wrong labels that are j. Of them Cm keeps the largest ones, S, namely as many as maximise

    sum over j in S of f[j] log(f[j] / sum over S of f)  +  sum over j not in S of f[j] log(1 / (C - 1))

and scales them to sum 1. A class whose label is never wrong has a column of zeros: none is confused with it.
"""

import numpy as np

TYPES = 3
NOISE_FREE, RANDOM, CONFUSING = range(TYPES)
UNKNOWN = -1  # the type of an image without a noisy label


def confusing_classes(counts: np.ndarray) -> np.ndarray:
    """Cm.

    Args:
        counts: (C, C) numbers of images by clean class (rows) and noisy label.

    Returns:
        (C, C) float64: rows are noisy labels, columns clean classes.
    """
    wrong = counts.astype(np.float64)
    np.fill_diagonal(wrong, 0.0)
    columns = [_most_likely(row / row.sum()) if row.any() else row for row in wrong]
    return np.stack(columns, axis=1)


def _most_likely(shares: np.ndarray) -> np.ndarray:
    """(C,) shares of one class's wrong labels, of which those are kept, at sum 1, that need not be called random."""
    order = np.argsort(-shares, kind="stable")
    largest = shares[order]
    random = -np.log(max(1, len(shares) - 1))  # of one label, in a type that knows no other class better
    sums = np.cumsum(largest)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.cumsum(np.where(largest > 0, largest * np.log(largest), 0.0)) - sums * np.log(sums)
    kept = order[: 1 + int(np.argmax(own + (1.0 - sums) * random))]
    column = np.zeros_like(shares)
    column[kept] = shares[kept] / shares[kept].sum()
    return column


def types_of(clean: np.ndarray, noisy: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """Which type of noise each image has: a wrong label is confusing if it is likelier than a random one.

    Args:
        clean: (n,) clean labels.
        noisy: (n,) noisy labels; -1 where an image has none.
        confusion: (C, C) Cm.

    Returns:
        (n,) int64, `UNKNOWN` where an image has no noisy label.
    """
    likelier = confusion[noisy, clean] > 1 / max(1, len(confusion) - 1)
    types = np.where(noisy == clean, NOISE_FREE, np.where(likelier, CONFUSING, RANDOM))
    return np.where(noisy < 0, UNKNOWN, types).astype(np.int64)


def log_table(confusion: np.ndarray) -> np.ndarray:
    """The logarithm of P(~y | y, z), (C, C, 3) float64 by given label, class and type.

    What cannot be is minus infinity; some type can always be, whatever the label.
    """
    classes = len(confusion)
    same = np.eye(classes)
    table = np.stack([same, (1 - same) / max(1, classes - 1), confusion], axis=2)
    with np.errstate(divide="ignore"):
        logs: np.ndarray = np.log(table)
    return logs
