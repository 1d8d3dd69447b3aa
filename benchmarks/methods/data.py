"""Makes what methods are compared on: drawn garments, the same images under their true labels, and scanned digits.

    python -m benchmarks.methods.data

All of it goes to ~/.cache/clothing1m-fl/benchmarks/methods, where the grids beside this file look for it, with the
transition matrices that forward is told. What is there already stays.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.tools.command import run_command
from data.errors import DataError
from data.layout.finding import CATEGORIES, CLEAN_LABELS, LIST_FILES, NOISY_LABELS, TRUE_LABELS
from data.sample import VERSION, SampleSize, draw_sample
from data.sources.folder import Shares, import_folder
from data.user_cache import below_home
from data.whole_files import replace_file
from data.whole_folders import complete_or_absent

# As few as let cross-entropy learn all labels by heart in a dozen rounds; clean val and clean train are not used.
SIZE = SampleSize(train=2000, clean_train=100, val=100, test=1400, image_size=32, seed=1)
# For forty clients, so that each holds as many images as a mixture of its losses needs.
MANY = SampleSize(train=4000, clean_train=100, val=100, test=1400, image_size=32, seed=1)
# Of the 1,797 digits as few as possible go to the clean lists that are not used.
DIGITS = Shares(clean_train=0.01, val=0.01, test=0.2)
DIGITS_SIDE = 32  # pixels, as stored; scanned at 8


PLACE = "~/.cache/clothing1m-fl/benchmarks/methods"  # as the grids have it, whatever XDG_CACHE_HOME is
# By grid: what makes its labels wrong, how many classes there are, and the share of the wrong labels. With
# client-dependent noise, 0.4 of the clients have 0.5 to 0.8 of theirs wrong.
TRANSITIONS = {
    "mixed": ("symmetric", 14, 0.26),
    "noisy-clients": ("symmetric", 14, 0.26),
    "digits-symmetric": ("symmetric", 10, 0.4),
    "digits-pairflip": ("pairflip", 10, 0.4),
}


def make(folder: Path) -> list[Path]:
    """Make all that is missing in `folder`; returns what the grids name.

    Releases have a hash of what they were made of in their names, and a link without it.

    Raises:
        DataError: Something else is where a link belongs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    releases = dict(zip(("sample", "truth"), sample_and_truth(folder), strict=True)) | {
        "truth-of-many": sample_and_truth(folder, MANY)[1],
        "digits": digits(folder),
    }
    for name, release in releases.items():
        link_to(release, folder / name)
    for name, noise in TRANSITIONS.items():
        replace_file(folder / f"transition-{name}.txt", _as_text(transition_of(*noise)))
    return [*(folder / name for name in releases), *(folder / f"transition-{name}.txt" for name in TRANSITIONS)]


def link_to(release: Path, link: Path) -> None:
    """Replace the link, or make it.

    Raises:
        DataError: It is no link.
    """
    if os.path.lexists(link) and not link.is_symlink():
        raise DataError(f"{link} is in the way; it must be a link to {release.name}, so move it away.")
    new = link.with_name(f"{link.name}.{os.getpid()}")
    new.symlink_to(release.name)
    new.replace(link)


def transition_of(noise: str, classes: int, wrong: float) -> np.ndarray:
    """(C, C) float64 P(given label | true class) of synthetic noise, averaged over clients."""
    keep = np.eye(classes)
    others = (1 - keep) / (classes - 1) if noise == "symmetric" else np.roll(keep, -1, axis=1)
    return (1 - wrong) * keep + wrong * others


def _as_text(matrix: np.ndarray) -> bytes:
    return "".join(" ".join(f"{value:.18e}" for value in row) + "\n" for row in matrix).encode()


def sample_and_truth(folder: Path, size: SampleSize = SIZE) -> tuple[Path, Path]:
    """Draw the sample below `folder`, unless it is there.

    Returns:
        A release with noisy labels, and one that shares its images and whose noisy label file has the true labels.
    """
    mark = hashlib.sha256(json.dumps([VERSION, asdict(size)], sort_keys=True).encode()).hexdigest()[:8]
    sample, truth = folder / f"sample-{mark}", folder / f"truth-{mark}"
    if not sample.is_dir():
        draw_sample(sample, **asdict(size))
    if not truth.is_dir():
        write_truth(sample, truth)
    return sample, truth


def digits(folder: Path) -> Path:
    """The digits that scikit-learn ships (UCI, 8 x 8 pixels, 17 greys), dark on light, as imported from image files."""
    mark = hashlib.sha256(json.dumps(["digits", asdict(DIGITS), DIGITS_SIDE]).encode()).hexdigest()[:8]
    out = folder / f"digits-{mark}"
    if not out.is_dir():
        with tempfile.TemporaryDirectory() as temporary:
            write_digits(Path(temporary))
            import_folder(Path(temporary), out, DIGITS, noise_rate=0.0, seed=1)
    return out


def write_digits(folder: Path) -> None:
    """A folder of PNG files for each class below `folder`."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    for number, (scan, label) in enumerate(zip(scans.images, scans.target, strict=True)):
        pixels = np.rint(255 - scan * (255 / 16)).astype(np.uint8)
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((DIGITS_SIDE, DIGITS_SIDE), Image.Resampling.BILINEAR).save(path)


def write_truth(sample: Path, out: Path) -> None:
    """A release beside `sample` with its images, linked, and the true labels of noisy train in place of the noisy ones.

    Noisy labels that clean images carry as well stay what they are.

    Raises:
        DataError: `out` is there already.
    """
    true = dict(line.rsplit(" ", 1) for line in _lines(sample / TRUE_LABELS))
    with complete_or_absent(out) as folder:
        for name in (CATEGORIES, CLEAN_LABELS, TRUE_LABELS, *LIST_FILES.values()):
            os.link(sample / name, folder / name)
        pairs = [line.rsplit(" ", 1) for line in _lines(sample / NOISY_LABELS)]
        text = "".join(f"{key} {true.get(key, label)}\n" for key, label in pairs)
        (folder / NOISY_LABELS).write_text(text, encoding="utf-8")
        (folder / "images").symlink_to(Path("..") / sample.name / "images")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def main() -> None:
    for path in make(below_home(PLACE)):
        print(path)


if __name__ == "__main__":
    run_command(main, __doc__)
