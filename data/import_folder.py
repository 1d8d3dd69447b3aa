"""Turns a folder of images with one subfolder per class into the released layout."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DamageError, DataError
from data.images.decode import Look, as_upright_jpeg
from data.images.formats import read_suffixes
from data.layout.writer import Labelled, complete_or_absent, draw_keys, write_annotations
from data.noise.published import flip_symmetrically


@dataclass(frozen=True)
class Shares:
    """Shares of each class that go to the clean lists; the rest is noisy train."""

    clean_train: float = 0.1
    val: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        for name, share in (("clean-train", self.clean_train), ("val", self.val), ("test", self.test)):
            if not 0 < share < 1:
                raise DataError(f"--{name} is {share:g}; it must be above 0 and below 1.")
        if self.clean_train + self.val + self.test >= 1:
            raise DataError("--clean-train, --val and --test add up to 1 or more; something must be left for training.")

    def counts(self, size: int) -> dict[str, int]:
        """Images of a class of `size` for each clean list: at least one each, and at least one left for training."""
        shares = {"clean_train": self.clean_train, "clean_val": self.val, "clean_test": self.test}
        counts = {split: max(1, round(share * size)) for split, share in shares.items()}
        while sum(counts.values()) >= size:
            counts[max(counts, key=counts.__getitem__)] -= 1
        return counts


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        counts: Number of images of each list.
        skipped: Number of files that are not hidden and have none of `read_suffixes`, by their suffix.
        suspect: Images whose pixels may be damaged, and why.
    """

    counts: dict[str, int]
    skipped: dict[str, int]
    suspect: dict[Path, str]


def import_folder(folder: Path, out: Path, shares: Shares, noise_rate: float, seed: int) -> Imported:
    """Import ``folder/<class>/<image>``; classes are numbered in the order of their names.

    JPEGs that stand upright are copied byte for byte; other images are turned as their orientation tags say, and saved
    as JPEG. Hidden files and folders are skipped.

    Args:
        folder: Holds one folder per class; images may lie in folders below it.
        out: A folder that does not exist yet, or an empty one, outside `folder`.
        shares: How each class is split.
        noise_rate: Probability that a noisy training image gets one of the other labels, uniformly.
        seed: Decides splits, keys and noise.

    Raises:
        DataError: Fewer than two classes, fewer than four images of a class, an unreadable image, a bad flag.
    """
    if not 0 <= noise_rate < 1:
        raise DataError(f"--noise-rate is {noise_rate:g}; it must be at least 0 and below 1.")
    if seed < 0:
        raise DataError(f"--seed is {seed}; it must be at least 0.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"--out is {out}, which is inside {folder}; it must be elsewhere.")
    classes, skipped = _find_classes(folder)
    rng = np.random.default_rng([seed, 1])
    sources: dict[str, list[Path]] = {"noisy_train": [], "clean_train": [], "clean_val": [], "clean_test": []}
    labels: dict[str, list[int]] = {split: [] for split in sources}
    for label, files in enumerate(classes.values()):
        order = [files[row] for row in rng.permutation(len(files))]
        for split, count in shares.counts(len(files)).items():
            sources[split] += order[:count]
            labels[split] += [label] * count
            order = order[count:]
        sources["noisy_train"] += order
        labels["noisy_train"] += [label] * len(order)
    keys = iter(draw_keys(sum(map(len, sources.values())), rng))
    splits = {}
    for split, files in sources.items():
        true = np.array(labels[split], dtype=np.int32)
        noisy = flip_symmetrically(true, noise_rate, len(classes), rng)
        splits[split] = Labelled([next(keys) for _ in files], true, noisy if split == "noisy_train" else 0 * noisy - 1)
    suspect: dict[Path, str] = {}
    with complete_or_absent(out) as target:
        write_annotations(target, list(classes), list(classes), splits, rng)
        for split, files in sources.items():
            for source, key in zip(files, splits[split].keys, strict=True):
                path = target / key
                path.parent.mkdir(parents=True, exist_ok=True)
                data, look = _as_jpeg(source)
                path.write_bytes(data)
                if look.suspect:
                    suspect[source] = look.suspect
    return Imported({split: len(files) for split, files in sources.items()}, skipped, suspect)


def _find_classes(folder: Path) -> tuple[dict[str, list[Path]], dict[str, int]]:
    """Class names to their sorted image files, and by suffix how many files are not images that are read."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; it must hold one folder of images per class.")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    below = {path.name: _files_below(path) for path in folders}
    classes = {
        name: [path for path in found if path.suffix.lower() in read_suffixes()] for name, found in below.items()
    }
    if len(classes) < 2:
        raise DataError(
            f"{folder} holds {len(classes)} folders; it must hold one folder of images per class, at least 2."
        )
    for name, files in classes.items():
        if name != name.strip() or not name.isprintable():
            raise DataError(f"class folder {name!r} must have a plain name without leading or trailing spaces.")
        if len(files) < 4:
            raise DataError(f"class {name} has {len(files)} images; it must have at least 4, one for each list.")
    others = Counter(path.suffix.lower() for found in below.values() for path in found)
    return classes, {suffix: others[suffix] for suffix in sorted(others) if suffix not in read_suffixes()}


def _files_below(folder: Path) -> list[Path]:
    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path))


def _as_jpeg(path: Path) -> tuple[bytes, Look]:
    try:
        return as_upright_jpeg(path.read_bytes())
    except DamageError as error:
        raise DataError(f"{path} cannot be read as an image ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
