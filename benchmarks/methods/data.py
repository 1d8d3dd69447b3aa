"""The synthetic sample that methods are compared on, and the same images under their true labels."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from data.layout.finding import CATEGORIES, CLEAN_LABELS, LIST_FILES, NOISY_LABELS, TRUE_LABELS
from data.layout.writer import complete_or_absent
from data.sample import VERSION, SampleSize, draw_sample

# As few as let cross-entropy learn all labels by heart in a dozen rounds; clean val and clean train are not used.
SIZE = SampleSize(train=2000, clean_train=100, val=100, test=1400, image_size=32, seed=1)


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
