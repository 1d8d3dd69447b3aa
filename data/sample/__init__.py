"""Draws a small look-alike of Clothing1M in its released layout, so that everything runs without the dataset.

Drawn garments (`data.sample.garments`) under invented keys, with labels wrong as often, and in the same ways, as the
web's (`data.noise.published`). Fit for trying things out and for tests; accuracies on it say nothing about Clothing1M.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.layout.writer import Labelled, draw_keys, write_annotations
from data.noise.published import draw_clean, draw_noisy_train, draw_second_labels
from data.sample.garments import draw_garment
from data.user_cache import cache_folder
from data.whole_folders import complete_or_absent

NAMES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip
NAMES_CHN = (
    "T恤", "衬衫", "针织衫", "雪纺衫", "羊绒衫", "外套", "风衣", "夹克", "羽绒服", "西装",
    "披肩", "连衣裙", "背心", "内衣",
)  # fmt: skip
GREYSCALE_SHARE = 0.01
VERSION = 1  # of the drawing; another version is another sample


@dataclass(frozen=True)
class SampleSize:
    """How many images each list has, how large they are, and the seed.

    Attributes:
        train: Noisy training images.
        clean_train: Clean training images.
        val: Clean validation images.
        test: Clean test images.
        image_size: Shorter side in pixels.
        seed: Of everything that is drawn.
    """

    train: int = 4000
    clean_train: int = 400
    val: int = 200
    test: int = 700
    image_size: int = 64
    seed: int = 1


def draw_sample(out: Path, *, train: int, clean_train: int, val: int, test: int, image_size: int, seed: int) -> None:
    """Draw a sample into `out`, which is complete afterwards or not there.

    Args:
        out: A folder that does not exist yet, or an empty one.
        train: Number of noisy training images.
        clean_train: Number of clean training images.
        val: Number of clean validation images.
        test: Number of clean test images.
        image_size: Shorter side in pixels; the longer one varies.
        seed: The same seed gives the same bytes.

    Raises:
        DataError: A count below 1, an image size outside 16 to 2048, a negative seed, or a bad `out`.
    """
    counts = {"noisy_train": train, "clean_train": clean_train, "clean_val": val, "clean_test": test}
    for name, count in counts.items():
        if count < 1:
            raise DataError(f"the sample's {name} has {count} images; it must have at least 1.")
    if not 16 <= image_size <= 2048:
        raise DataError(f"the sample's image size is {image_size}; it must be from 16 to 2048 pixels.")
    if seed < 0:
        raise DataError(f"the sample's seed is {seed}; it must be at least 0.")
    rng = np.random.default_rng([seed, 0])
    keys = iter(draw_keys(sum(counts.values()), rng))
    splits = {name: _draw_labels(name, [next(keys) for _ in range(count)], rng) for name, count in counts.items()}
    with complete_or_absent(out) as folder:
        write_annotations(folder, NAMES, NAMES_CHN, splits, rng)
        index = 0
        for part in splits.values():
            for key, label in zip(part.keys, part.true.tolist(), strict=True):
                index += 1  # one generator per image: what one draws does not shift the next
                _draw_file(folder / key, label, image_size, np.random.default_rng([seed, index]))


def default_sample() -> Path:
    """The sample that runs use when no `data-dir` is given; drawn once, under the user's cache directory.

    Returns:
        Its folder. Several processes may call this at once: one wins, the others use what it drew.
    """
    out = sample_folder()
    if not out.is_dir():
        try:
            draw_sample(out, **asdict(SampleSize()))
        except DataError:
            if not out.is_dir():
                raise
    return out


def sample_folder() -> Path:
    """Where `default_sample` is, or will be."""
    text = json.dumps([VERSION, asdict(SampleSize())], sort_keys=True)
    return cache_folder(f"sample-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


def _draw_labels(split: str, keys: list[str], rng: np.random.Generator) -> Labelled:
    if split == "noisy_train":
        return Labelled(keys, *draw_noisy_train(len(keys), rng))
    true = draw_clean(len(keys), rng)
    return Labelled(keys, true, draw_second_labels(true, rng))


def _draw_file(path: Path, label: int, image_size: int, rng: np.random.Generator) -> None:
    """Draw one JPEG: most are somewhat taller than wide, as photos of clothes are."""
    ratio = float(np.clip(rng.normal(1.15, 0.15), 0.8, 1.5))
    longer = round(image_size * max(ratio, 1 / ratio))
    image = draw_garment(label, (image_size, longer) if ratio >= 1 else (longer, image_size), rng)
    if rng.random() < GREYSCALE_SHARE:
        image = image.convert("L")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=int(rng.integers(85, 93)))
