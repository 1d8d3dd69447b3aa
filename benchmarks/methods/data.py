"""What methods are compared on: the synthetic sample, the same images under their true labels, and scanned digits."""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from data.import_folder import Shares, import_folder
from data.layout.finding import CATEGORIES, CLEAN_LABELS, LIST_FILES, NOISY_LABELS, TRUE_LABELS
from data.layout.writer import complete_or_absent
from data.sample import VERSION, SampleSize, draw_sample

# As few as let cross-entropy learn all labels by heart in a dozen rounds; clean val and clean train are not used.
SIZE = SampleSize(train=2000, clean_train=100, val=100, test=1400, image_size=32, seed=1)
# Of the 1,797 digits as few as possible go to the clean lists that are not used.
DIGITS = Shares(clean_train=0.01, val=0.01, test=0.2)
DIGITS_SIDE = 32  # pixels, as stored; scanned at 8


def release_of(name: str, folder: Path) -> Path:
    """The release `name` below `folder`, which is made unless it is there: ``sample``, ``truth`` or ``digits``."""
    if name == "digits":
        return digits(folder)
    released, truth = sample_and_truth(folder)
    return released if name == "sample" else truth


def identity_of(name: str) -> object:
    """What decides which images and labels the release `name` has, for JSON."""
    return [name, asdict(DIGITS), DIGITS_SIDE] if name == "digits" else [name, VERSION, asdict(SIZE)]


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
    mark = hashlib.sha256(json.dumps(identity_of("digits")).encode()).hexdigest()[:8]
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
