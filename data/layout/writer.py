"""Draws the keys of a release, and writes its text files, in exactly the released form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.layout.finding import (
    CATEGORIES,
    CLEAN_LABELS,
    LIST_FILES,
    NOISY_LABELS,
    SPLITS,
    TRUE_LABELS,
    WRONG,
    WRONG_LABELS,
)
from data.layout.groups import GROUP_NAMES, GROUPS

CATEGORIES_CHN = "category_names_chn.txt"


@dataclass(frozen=True)
class Labelled:
    """Images of one list.

    Attributes:
        keys: Released form, such as ``images/7/88/314159265,2718281788.jpg``.
        true: (n,) true class of each; -1 where it is unknown, in noisy train `WRONG` where no more is known than that
            the noisy label is wrong.
        noisy: (n,) noisy label of each, or -1 where it carries none.
        groups: (n,) number of whom or where each comes from, or -1; None if nothing is known of any.
    """

    keys: Sequence[str]
    true: np.ndarray
    noisy: np.ndarray
    groups: np.ndarray | None = None


def draw_keys(count: int, rng: np.random.Generator) -> list[str]:
    """Invented keys in the released form: two 32-bit numbers, in the folder that the second one modulo 1000 names."""
    keys: dict[str, None] = {}
    while len(keys) < count:
        for first, second in rng.integers(0, 2**32, (count - len(keys), 2)).tolist():
            keys[f"images/{second % 1000 // 100}/{second % 100:02}/{first},{second}.jpg"] = None
    return list(keys)


def write_annotations(
    folder: Path,
    names: Sequence[str],
    names_chn: Sequence[str],
    splits: Mapping[str, Labelled],
    rng: np.random.Generator,
    group_names: Sequence[str] = (),
) -> None:
    """Write the eight released text files, with `TRUE_LABELS` and `WRONG_LABELS` beside them if there are any such; of
    lists that are left out, none.

    As released: key lists are sorted by byte and end without a newline, as does the English category file; label files
    are shuffled and end with one; they cover more than the lists, because images of the clean lists can carry a noisy
    label as well. A label file without a label is not written, unless a list needs it.

    Args:
        folder: Where to write.
        names: English class names in index order.
        names_chn: Chinese ones.
        splits: At least one of `SPLITS`.
        rng: Shuffles the label files.
        group_names: By the numbers in `Labelled.groups`; with some, the two files of `data.layout.groups` are written.
    """
    _write(folder / CATEGORIES, "\n".join(names))
    _write(folder / CATEGORIES_CHN, "".join(f"{name}\n" for name in names_chn))
    for split, part in splits.items():
        _write(folder / LIST_FILES[split], "\n".join(sorted(part.keys)))
    noisy_train = [splits[split] for split in SPLITS[:1] if split in splits]
    clean = [splits[split] for split in SPLITS[1:] if split in splits]
    _write_labels(folder / CLEAN_LABELS, [(part.keys, part.true) for part in clean], rng, bool(clean))
    noisy = [(part.keys, part.noisy) for part in (*noisy_train, *clean)]
    _write_labels(folder / NOISY_LABELS, noisy, rng, bool(noisy_train))
    _write_labels(folder / TRUE_LABELS, [(part.keys, part.true) for part in noisy_train], rng, needed=False)
    if wrong := [part.keys[row] for part in noisy_train for row in np.flatnonzero(part.true == WRONG).tolist()]:
        _write(folder / WRONG_LABELS, "\n".join(sorted(wrong)))
    if group_names:
        grouped = [(part.keys, part.groups) for part in splits.values() if part.groups is not None]
        _write_labels(folder / GROUPS, grouped, rng, needed=True)
        _write(folder / GROUP_NAMES, "".join(f"{name}\n" for name in group_names))


def _write_labels(
    path: Path, parts: Sequence[tuple[Sequence[str], np.ndarray]], rng: np.random.Generator, needed: bool
) -> None:
    lines = [
        f"{key} {label}\n"
        for keys, labels in parts
        for key, label in zip(keys, labels.tolist(), strict=True)
        if label >= 0
    ]
    if lines or needed:
        _write(path, "".join(lines[row] for row in rng.permutation(len(lines))))


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
