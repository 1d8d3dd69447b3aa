"""The label noise of noisy train as text: how much of it there is, and which classes are taken for which others."""

import numpy as np

from data.summary import Pairs, Summary
from data.text import label

MOST_CLASSES = 20  # of a matrix that fits on a screen; of more, the largest confusions are listed
LISTED = 10


def noise_text(summary: Summary) -> str:
    """Noise rate and noise matrix; empty if no label of noisy train is known to be right or wrong.

    Labels that are known to be wrong, without a true one, count in the rate alone.
    """
    pairs, classes = summary.drawn, len(summary.class_names)
    known = len(pairs) + summary.known_wrong
    if not known:
        return ""
    wrong = int((pairs.true != pairs.noisy).sum()) + summary.known_wrong
    lines = [
        f"Noise rate of noisy train: {wrong / known:.1%} ({wrong:,} of {known:,} labels of which it is known whether"
        " they are right)."
    ]
    if len(pairs):
        names = [label(name) for name in summary.class_names]
        lines += _matrix(pairs, names) if classes <= MOST_CLASSES else _largest(pairs, names)
    return "\n".join(lines)


def _matrix(pairs: Pairs, names: list[str]) -> list[str]:
    """Percentages of each row: of the images that show a class, those with each given label."""
    counts = pairs.confusion(len(names)).counts
    totals = counts.sum(axis=1)
    width = max(map(len, ("true class", *names)))
    columns = "".join(f"{number:>5}" for number in range(len(names)))
    lines = [
        "Noise matrix: of the images that show a class (row), the percentage with each given label (column).",
        f"{'':>3}  {'true class':<{width}}{columns}  {'images':>11}",
    ]
    for number, (row, total) in enumerate(zip(counts.tolist(), totals.tolist(), strict=True)):
        cells = "".join(f"{_percent(count, total):>5}" for count in row)
        lines.append(f"{number:>3}  {names[number]:<{width}}{cells}  {total:>11,}")
    return lines


def _percent(count: int, total: int) -> str:
    """A point for none, so that a matrix of few confusions is easy to read."""
    return f"{100 * count / total:.0f}" if count else "."


def _largest(pairs: Pairs, names: list[str]) -> list[str]:
    """The pairs of classes with the most wrong labels; of equal ones those of the first classes."""
    wrong = pairs.true != pairs.noisy
    cells = pairs.true[wrong].astype(np.int64) * len(names) + pairs.noisy[wrong]
    found, counts = np.unique(cells, return_counts=True)
    totals = np.bincount(pairs.true, minlength=len(names))
    largest = np.argsort(-counts, kind="stable")[:LISTED]
    if not len(largest):
        return []
    lines = ["The largest confusions, true class -> given label, in percent of the images that show the class:"]
    for cell, count in zip(found[largest].tolist(), counts[largest].tolist(), strict=True):
        true, given = divmod(cell, len(names))
        share = count / totals[true]
        lines.append(f"{names[true]} -> {names[given]} {100 * share:.1f} % ({count:,} of {totals[true]:,} images)")
    return lines
