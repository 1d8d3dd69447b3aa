"""A folder of people's own photos with one subfolder per class, divided into the lists of a release."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.images.formats import read_suffixes
from data.layout.finding import SPLITS
from data.layout.writer import draw_keys
from data.noise.published import flip_symmetrically
from data.photo_folders import LEAST, find_photos
from data.sources.source import Listed, Source, files_below
from data.sources.writing import Written, write_source
from data.text import shown


@dataclass(frozen=True)
class Shares:
    """How the images of each class are divided.

    Attributes:
        clean_train: Share of clean train; `val` and `test` likewise. The rest is noisy train.
        only: One of `SPLITS`, the only list that is written, of all images; empty: all four are.
    """

    clean_train: float = 0.1
    val: float = 0.1
    test: float = 0.2
    only: str = ""

    def __post_init__(self) -> None:
        if self.only and self.only not in SPLITS:
            raise DataError(f"--only is {shown(self.only)}; it must be one of {', '.join(SPLITS)}.")
        for name, share in (("clean-train", self.clean_train), ("val", self.val), ("test", self.test)):
            if not 0 < share < 1:
                raise DataError(f"--{name} is {share:g}; it must be above 0 and below 1.")
        if self.clean_train + self.val + self.test >= 1:
            raise DataError("--clean-train, --val and --test add up to 1 or more; something must be left for training.")

    def counts(self, size: int) -> dict[str, int]:
        """Images of a class of `size` for each list but noisy train, which gets the rest; all four get at least one."""
        if self.only:
            return {self.only: size}
        shares = {"clean_train": self.clean_train, "clean_val": self.val, "clean_test": self.test}
        counts = {split: max(1, round(share * size)) for split, share in shares.items()}
        while sum(counts.values()) >= size:
            counts[max(counts, key=counts.__getitem__)] -= 1
        return counts


def import_folder(folder: Path, out: Path, shares: Shares, noise_rate: float, seed: int) -> Written:
    """Read a folder as `read_folder` does, and write it as `data.sources.writing.write_source` does."""
    return write_source(read_folder(folder, shares, noise_rate, seed), out)


def read_folder(folder: Path, shares: Shares, noise_rate: float, seed: int) -> Source:
    """Photos in ``folder/<class>/<image>``; classes are numbered in the order of their names.

    Args:
        folder: Holds one folder per class; images may lie in folders below it.
        shares: How each class is split. With all in one list, a class may have no image.
        noise_rate: Probability that a noisy training image gets one of the other labels, uniformly. If it is 0 and all
            images are in noisy train, nobody knows their true classes.
        seed: Decides splits, keys and noise.

    Raises:
        DataError: What `data.photo_folders.find_photos` refuses, or a bad flag.
    """
    if not 0 <= noise_rate < 1:
        raise DataError(f"--noise-rate is {noise_rate:g}; it must be at least 0 and below 1.")
    if noise_rate and shares.only not in ("", "noisy_train"):
        raise DataError(
            f"--noise-rate is {noise_rate:g}, but with --only {shares.only} no label is noisy; leave it out."
        )
    if seed < 0:
        raise DataError(f"--seed is {seed}; it must be at least 0.")
    photos = find_photos(folder, frozenset(read_suffixes()), least=0 if shares.only else LEAST)
    classes = photos.classes
    rng = np.random.default_rng([seed, 1])
    sources: dict[str, list[Path]] = {split: [] for split in ([shares.only] if shares.only else SPLITS)}
    labels: dict[str, list[int]] = {split: [] for split in sources}
    for label, files in enumerate(classes.values()):
        order = [files[row] for row in rng.permutation(len(files))]
        for split, count in shares.counts(len(files)).items():
            sources[split] += order[:count]
            labels[split] += [label] * count
            order = order[count:]
        if order:
            sources["noisy_train"] += order
            labels["noisy_train"] += [label] * len(order)
    keys = iter(draw_keys(sum(map(len, sources.values())), rng))
    splits = {}
    for split, files in sources.items():
        true = np.array(labels[split], dtype=np.int64)
        noisy = flip_symmetrically(true, noise_rate, len(classes), rng)
        unknown = np.full_like(true, -1)
        if split != "noisy_train":
            noisy = unknown
        elif shares.only and not noise_rate:
            true = unknown
        origins = [str(path.relative_to(folder)) for path in files]
        splits[split] = Listed(origins, [next(keys) for _ in files], true, noisy)
    return Source(folder, tuple(classes), splits, files_below(folder), photos.left_out, own=True)
