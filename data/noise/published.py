"""The published label noise of Clothing1M, and labels drawn from it.

`CONFUSION` counts the 32,102 images of clean train and clean val that carry both labels: 61.68 % agree. It was
tallied from published annotation lists of Clothing1M (Xiao et al., CVPR 2015); only the aggregate is given here.

Two marginals of the release cannot both be kept, because the double-labelled images are not a random sample of the
million. The noisy training images keep the million's noisy class counts, ``NOISY_TRAIN_COUNTS``, and P(true | noisy)
of the matrix: their agreement is then 60.5 %. The clean lists keep their class counts, and which of their images carry
a noisy label too depends on the class as in the release, so that these images have the matrix itself: 61.7 %.
"""

import numpy as np

# Rows: true (clean) class, columns: noisy class, in the released class order.
CONFUSION = np.array(
    [
        [1558, 73, 174, 54, 38, 142, 0, 68, 3, 4, 1, 170, 38, 109],
        [198, 1894, 28, 111, 3, 6, 11, 74, 7, 33, 1, 121, 9, 7],
        [167, 29, 523, 9, 321, 31, 10, 7, 1, 4, 21, 84, 25, 13],
        [513, 716, 50, 1547, 4, 9, 6, 9, 0, 4, 1, 449, 74, 1],
        [249, 10, 1098, 8, 193, 47, 5, 3, 0, 2, 2, 77, 21, 39],
        [62, 25, 90, 4, 15, 1691, 79, 401, 27, 25, 2, 10, 24, 26],
        [3, 20, 22, 0, 1, 29, 1051, 164, 386, 87, 11, 72, 6, 3],
        [6, 87, 0, 0, 0, 31, 263, 498, 42, 1, 1, 42, 12, 0],
        [12, 22, 5, 2, 1, 45, 489, 341, 1433, 8, 14, 10, 291, 12],
        [14, 21, 28, 4, 3, 6, 371, 126, 2, 2156, 7, 98, 10, 0],
        [6, 13, 71, 4, 6, 2, 30, 2, 0, 8, 2211, 14, 8, 2],
        [148, 54, 118, 65, 9, 13, 81, 8, 3, 23, 13, 1784, 97, 27],
        [222, 29, 50, 42, 0, 2, 0, 60, 0, 0, 0, 645, 1053, 141],
        [133, 15, 34, 1, 58, 21, 3, 4, 0, 5, 4, 76, 308, 2209],
    ],
    dtype=np.int64,
)
# Images per class of the million, by noisy label, and of the three clean lists together, by clean label.
NOISY_TRAIN_COUNTS = np.array(
    [86152, 88131, 85788, 50092, 18976, 82829, 80437, 80699, 73318, 88588, 42312, 87958, 59663, 75057]
)
CLEAN_COUNTS = np.array([6040, 4559, 3769, 7958, 6303, 5641, 4033, 2058, 6799, 5215, 3450, 4756, 6142, 5686])
CLEAN_TEST_COUNTS = np.array([845, 636, 527, 1171, 918, 824, 558, 297, 1017, 727, 523, 686, 946, 851])
# Share of the clean images of each true class that carry a noisy label as well, counted on train and val.
DOUBLE_LABELLED_SHARE = CONFUSION.sum(axis=1) / (CLEAN_COUNTS - CLEAN_TEST_COUNTS)


def draw_noisy_train(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noisy labels from the million's class counts, then each true label from P(true | noisy).

    Returns:
        True and noisy labels, each (count,) int32.
    """
    noisy = rng.choice(len(CONFUSION), count, p=NOISY_TRAIN_COUNTS / NOISY_TRAIN_COUNTS.sum())
    return draw_from_rows(CONFUSION.T, noisy, rng), noisy.astype(np.int32)


def draw_clean(count: int, rng: np.random.Generator) -> np.ndarray:
    """True labels, (count,) int32, from the class counts of the clean lists."""
    return rng.choice(len(CONFUSION), count, p=CLEAN_COUNTS / CLEAN_COUNTS.sum()).astype(np.int32)


def draw_second_labels(true: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The noisy labels of clean images: from P(noisy | true) where they carry one, else -1; (n,) int32."""
    noisy = draw_from_rows(CONFUSION, true, rng)
    labels: np.ndarray = np.where(rng.random(len(true)) < DOUBLE_LABELLED_SHARE[true], noisy, np.int32(-1))
    return labels


def flip_symmetrically(labels: np.ndarray, rate: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Replace each label with probability `rate` by one of the others, uniformly.

    Returns:
        (n,) int32.
    """
    flipped = rng.random(len(labels)) < rate
    steps: np.ndarray = rng.integers(1, num_classes, len(labels))
    noisy: np.ndarray = np.where(flipped, (labels + steps) % num_classes, labels)
    return noisy.astype(np.int32)


def draw_from_rows(counts: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each r in `rows`, a column drawn in proportion to ``counts[r]``; (n,) int32."""
    cumulative = np.cumsum(counts, axis=1)[rows]
    draws = rng.integers(0, cumulative[:, -1])
    columns: np.ndarray = (draws[:, None] >= cumulative).sum(axis=1)
    return columns.astype(np.int32)
