"""Which classes are taken for which others: as a table of all of them, or of those that are confused most."""

from dataclasses import dataclass

import numpy as np

MANY_CLASSES = 100  # with more, nobody reads the whole table, and it outweighs all else that a round writes
WORST = 40  # classes of a picture, if there are many


@dataclass(frozen=True)
class Confusion:
    """Counts of some classes.

    Attributes:
        classes: (n,) the classes shown; all, or the `WORST` with the most errors first.
        counts: (n, n) integers, rows are true classes, columns what they were taken for; if not all classes are shown,
            (n, n + 1) with the sum of all others at the end.
        of: How many classes there are.
    """

    classes: np.ndarray
    counts: np.ndarray
    of: int


def of_counts(counts: np.ndarray) -> Confusion:
    """From a whole table, (classes, classes) integers."""
    if len(counts) <= MANY_CLASSES:
        return Confusion(np.arange(len(counts)), counts, len(counts))
    totals = counts.sum(axis=1)
    worst = _most(totals - np.diag(counts))
    among = counts[np.ix_(worst, worst)]
    return Confusion(worst, np.column_stack([among, totals[worst] - among.sum(axis=1)]), len(counts))


def of_labels(true: np.ndarray, given: np.ndarray, classes: int) -> Confusion:
    """From two labels of each image, both (n,) integers; the table of all classes need not fit into memory."""
    if classes <= MANY_CLASSES:
        cells = true.astype(np.int64) * classes + given
        return of_counts(np.bincount(cells, minlength=classes**2).reshape(classes, classes))
    worst = _most(np.bincount(true[true != given], minlength=classes))
    place = np.full(classes, WORST)
    place[worst] = np.arange(WORST)
    shown = place[true] < WORST
    cells = place[true][shown] * (WORST + 1) + place[given][shown]
    return Confusion(worst, np.bincount(cells, minlength=WORST * (WORST + 1)).reshape(WORST, WORST + 1), classes)


def _most(numbers: np.ndarray) -> np.ndarray:
    """Where the `WORST` largest are, the largest first; of equal ones the first."""
    found: np.ndarray = np.argsort(-numbers, kind="stable")[:WORST]
    return found
