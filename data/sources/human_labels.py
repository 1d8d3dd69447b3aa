"""Labels that people gave to CIFAR's images: CIFAR-10N and CIFAR-100N.

J. Wei et al., "Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations", ICLR 2022. Their
files, ``CIFAR-10_human.pt`` and ``CIFAR-100_human.pt``, hold a dict of arrays with a label for each training image, in
the order of the python form of CIFAR; one of the arrays repeats CIFAR's own labels. Files of others, such as those of
TensorFlow Datasets, are in another order.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.sources.cifar_files import CIFAR10, CIFAR100, Kind
from data.text import shown
from data.torch_files import read_torch

CLEAN = "clean_label"
SETS = {  # what `--labels` may be, and what it is in the file
    CIFAR10.name: {
        "aggre": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
        "worse": "worse_label",
        "clean": CLEAN,
    },
    CIFAR100.name: {"noisy": "noisy_label", "coarse": "noisy_coarse_label", "clean": CLEAN},
}


def check_set(kind: Kind, labels: str, coarse: bool) -> None:
    """Refuse a value of ``--labels`` that `kind` lacks, or that is of other classes than the images are to have."""
    allowed = SETS[kind.name]
    if labels not in allowed:
        what = f"is {shown(labels)}" if labels else "is missing"
        raise DataError(f"--labels {what}; with --human-labels it must be one of {', '.join(allowed)}.")
    if coarse != (labels == "coarse"):
        need = "needs --coarse" if not coarse else "is of the 100 classes; leave out --coarse, or give --labels coarse"
        raise DataError(f"--labels {labels} {need}.")


def read_human_labels(path: Path, kind: Kind, labels: str, own: np.ndarray, root: Path) -> np.ndarray:
    """The labels of one set.

    Args:
        path: The authors' file.
        kind: The dataset.
        labels: One of `SETS`.
        own: (n,) CIFAR's own labels of its training images, of 10 or 100 classes, in the order of its files.
        root: Where these are, for messages.

    Returns:
        (n,) int64.

    Raises:
        DataError: The file is malformed, or lacks the set, or its copy of CIFAR's labels differs from `own`: then it is
            in another order, and its labels are those of other images.
    """
    if path.suffix == ".npy":
        raise DataError(f"{path} is no {kind.title}_human.pt; .npy files have the labels in another order of images.")
    found = read_torch(path)
    if type(found) is not dict:
        raise DataError(f"{path} holds no dict of labels; it must be {kind.title}_human.pt.")
    clean = _labels(path, found, CLEAN, len(own), kind.labels["fine"].classes)
    if wrong := int((clean != own).sum()):
        raise DataError(
            f"{path} is in another order than the images of {root}: {wrong:,} of {len(own):,} labels in its {CLEAN} are"
            " not those of the images; both must be as published, the images in the python form."
        )
    classes = kind.labels["coarse" if labels == "coarse" else "fine"].classes
    return _labels(path, found, SETS[kind.name][labels], len(own), classes)


def _labels(path: Path, found: dict[Any, Any], name: str, count: int, classes: int) -> np.ndarray:
    if name not in found:
        there = ", ".join(sorted(map(shown, list(found)[:8])))
        raise DataError(f"{path} has no {name}, only {there or 'nothing'}; it must be as published.")
    value = found[name]
    if type(value) is list and all(type(one) is int and 0 <= one < classes for one in value):
        value = np.array(value, np.int64)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.ndim != 1:
        raise DataError(f"{path} has a {name} that is not one row of whole numbers.")
    if len(value) != count:
        raise DataError(f"{path} has {len(value):,} labels in {name}, but there are {count:,} training images.")
    if value.min() < 0 or value.max() >= classes:
        raise DataError(f"{path} has labels in {name} that are not from 0 to {classes - 1}.")
    return value.astype(np.int64)
