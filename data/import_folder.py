"""Turns a folder of images with one subfolder per class into the released layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from data.errors import DamageError, DataError
from data.images.decode import Look, as_upright_jpeg
from data.images.formats import read_suffixes
from data.layout.finding import SPLITS
from data.layout.writer import Labelled, complete_or_absent, draw_keys, write_annotations
from data.noise.published import flip_symmetrically
from data.outputs import check_output
from data.photo_folders import LEAST, find_photos, printable
from data.text import shown

LEFT_OUT = "left-out.txt"  # in the release, if anything was


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


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        counts: Number of images of each list that was written.
        left_out: Every file that was not imported, and why; `LEFT_OUT` in the release has the same.
        suspect: Images whose pixels may be damaged, and why.
    """

    counts: dict[str, int]
    left_out: list[tuple[Path, str]]
    suspect: dict[Path, str]


def import_folder(folder: Path, out: Path, shares: Shares, noise_rate: float, seed: int) -> Imported:
    """Import ``folder/<class>/<image>``; classes are numbered in the order of their names.

    JPEGs that stand upright are copied byte for byte; other images are turned as their orientation tags say, and saved
    as JPEG. What is left out is named in `LEFT_OUT`.

    Args:
        folder: Holds one folder per class; images may lie in folders below it.
        out: A folder that does not exist yet, or an empty one, outside `folder`.
        shares: How each class is split. With all in one list, a class may have no image.
        noise_rate: Probability that a noisy training image gets one of the other labels, uniformly. If it is 0 and all
            images are in noisy train, nobody knows their true classes.
        seed: Decides splits, keys and noise.

    Raises:
        DataError: What `data.photo_folders.find_photos` refuses, images that cannot be read (all of them are named), a
            bad flag.
    """
    if not 0 <= noise_rate < 1:
        raise DataError(f"--noise-rate is {noise_rate:g}; it must be at least 0 and below 1.")
    if noise_rate and shares.only not in ("", "noisy_train"):
        raise DataError(
            f"--noise-rate is {noise_rate:g}, but with --only {shares.only} no label is noisy; leave it out."
        )
    if seed < 0:
        raise DataError(f"--seed is {seed}; it must be at least 0.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"--out is {out}, which is inside {folder}; it must be elsewhere.")
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
        true = np.array(labels[split], dtype=np.int32)
        noisy = flip_symmetrically(true, noise_rate, len(classes), rng)
        unknown = np.full_like(true, -1)
        if split != "noisy_train":
            noisy = unknown
        elif shares.only and not noise_rate:
            true = unknown
        splits[split] = Labelled([next(keys) for _ in files], true, noisy)
    suspect: dict[Path, str] = {}
    broken: list[tuple[Path, str]] = []
    with complete_or_absent(out) as target:
        write_annotations(target, list(classes), list(classes), splits, rng)
        for split, files in sources.items():
            for source, key in zip(files, splits[split].keys, strict=True):
                path = target / key
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    data, look = _as_jpeg(source)
                except DataError as error:
                    broken.append((source, str(error)))
                    continue
                path.write_bytes(data)
                if look.suspect:
                    suspect[source] = look.suspect
        if broken:
            _refuse(broken, out)
        if photos.left_out:
            _write_list(target / LEFT_OUT, photos.left_out)
    return Imported({split: len(files) for split, files in sources.items()}, photos.left_out, suspect)


def _refuse(broken: list[tuple[Path, str]], out: Path) -> NoReturn:
    """Refuse an import for all of its broken files at once."""
    first = broken[0][1]
    if len(broken) == 1:
        raise DataError(first)
    names = out.resolve().with_name(f"{out.name}.broken.txt")
    check_output(names)
    _write_list(names, broken)
    raise DataError(f"{len(broken):,} files cannot be imported, all named in {names}; the first: {first}")


def _write_list(path: Path, files: list[tuple[Path, str]]) -> None:
    """A file a line, whatever characters its name has: why, a tab, its path."""
    lines = (f"{why}\t{printable(file)}\n" for file, why in files)
    path.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))


def _as_jpeg(path: Path) -> tuple[bytes, Look]:
    try:
        return as_upright_jpeg(path.read_bytes())
    except DamageError as error:
        raise DataError(f"{path} cannot be read as an image ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
