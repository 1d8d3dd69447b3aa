"""The drawn sample: deterministic, wrong as often as the web, and read back by the reader."""

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import sample
from data.errors import DataError
from data.noise.published import (
    CLEAN_COUNTS,
    CONFUSION,
    NOISY_TRAIN_COUNTS,
    draw_clean,
    draw_noisy_train,
    draw_second_labels,
    flip_symmetrically,
)
from data.release import open_release
from data.sample import default_sample, draw_sample
from data.sample.garments import GARMENTS, draw_garment

SMALL = {"train": 60, "clean_train": 20, "val": 10, "test": 15, "image_size": 24}


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        draw_sample(tmp_path / name, **SMALL, seed=seed)
    assert _digest(tmp_path / "one") == _digest(tmp_path / "again")
    assert _digest(tmp_path / "one") != _digest(tmp_path / "other")


def test_the_reader_reads_the_sample(tmp_path: Path) -> None:
    draw_sample(tmp_path / "sample", **SMALL, seed=1)
    release = open_release(tmp_path / "sample")
    assert release.class_names == sample.NAMES
    sizes = {name: len(release.split(name).keys) for name in ("noisy_train", "clean_train", "clean_val", "clean_test")}
    assert sizes == {"noisy_train": 60, "clean_train": 20, "clean_val": 10, "clean_test": 15}
    with Image.open(Path(release.store.place(release.split("clean_test").keys[0]))) as image:
        assert image.format == "JPEG"
        assert min(image.size) == 24


def test_the_published_matrix_and_counts_add_up() -> None:
    assert CONFUSION.sum() == 32_102
    assert np.trace(CONFUSION) == 19_801
    assert NOISY_TRAIN_COUNTS.sum() == 1_000_000
    assert CLEAN_COUNTS.sum() == 72_409
    by_class = np.arange(14)  # one number that swapped or shifted counts would change
    assert (by_class * NOISY_TRAIN_COUNTS).sum() == 6_413_738
    assert (by_class * CLEAN_COUNTS).sum() == 463_757
    assert NOISY_TRAIN_COUNTS.min() == NOISY_TRAIN_COUNTS[sample.NAMES.index("Sweater")] == 18_976
    assert CLEAN_COUNTS.min() == CLEAN_COUNTS[sample.NAMES.index("Jacket")] == 2_058


def test_noisy_train_keeps_the_millions_noisy_counts_and_true_given_noisy() -> None:
    count = 400_000
    true, noisy = draw_noisy_train(count, np.random.default_rng(0))
    shares = np.bincount(noisy, minlength=14) / count
    np.testing.assert_allclose(shares, NOISY_TRAIN_COUNTS / 1e6, atol=0.002)
    table = np.zeros((14, 14))
    np.add.at(table, (true, noisy), 1)
    assert not table[CONFUSION == 0].any()
    given_noisy = table / table.sum(axis=0)
    np.testing.assert_allclose(given_noisy, CONFUSION / CONFUSION.sum(axis=0), atol=0.015)
    assert np.mean(true == noisy) == pytest.approx(0.605, abs=0.003)  # of scheme A in the data notes


def test_double_labelled_images_have_the_published_matrix() -> None:
    rng = np.random.default_rng(0)
    true = draw_clean(800_000, rng)
    np.testing.assert_allclose(np.bincount(true) / 800_000, CLEAN_COUNTS / 72_409, atol=0.002)
    noisy = draw_second_labels(true, rng)
    both = noisy >= 0
    assert both.mean() == pytest.approx(32_102 / 61_883, abs=0.003)  # as counted on clean train and val
    table = np.zeros((14, 14))
    np.add.at(table, (true[both], noisy[both]), 1)
    np.testing.assert_allclose(table / table.sum(), CONFUSION / 32_102, atol=0.002)
    assert np.trace(table) / table.sum() == pytest.approx(0.6168, abs=0.003)


def test_symmetric_flips_never_keep_the_label_and_spread_evenly() -> None:
    labels = np.zeros(100_000, dtype=np.int32)
    flipped = flip_symmetrically(labels, 0.3, 5, np.random.default_rng(0))
    assert np.mean(flipped != 0) == pytest.approx(0.3, abs=0.005)
    np.testing.assert_allclose(np.bincount(flipped)[1:] / 100_000, 0.075, atol=0.004)
    np.testing.assert_array_equal(flip_symmetrically(labels, 0.0, 5, np.random.default_rng(0)), labels)


def test_pixels_are_about_as_bright_as_clothing1ms() -> None:
    """Channel means of the dataset in common use: 0.6959, 0.6537, 0.6371."""
    images = [np.asarray(draw_garment(i % 14, (24, 30), np.random.default_rng(i))) for i in range(280)]
    means = np.mean([image.reshape(-1, 3).mean(axis=0) for image in images], axis=0) / 255
    np.testing.assert_allclose(means, [0.6959, 0.6537, 0.6371], atol=0.06)


def test_some_images_are_greyscale_and_shapes_vary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "GREYSCALE_SHARE", 0.3)
    draw_sample(tmp_path / "sample", **SMALL, seed=1)
    modes, sizes = [], set()
    for path in (tmp_path / "sample" / "images").rglob("*.jpg"):
        with Image.open(path) as image:
            modes.append(image.mode)
            sizes.add(image.size)
    assert set(modes) == {"L", "RGB"}
    assert len(sizes) > 5


def test_garments_differ_more_between_classes_than_by_chance() -> None:
    """A nearest-centroid rule on 16 x 16 pixels must find most classes: drawings that look alike teach nothing."""
    assert len(GARMENTS) == 14

    def draw(index: int) -> np.ndarray:
        image = draw_garment(index % 14, (32, 32), np.random.default_rng([7, index]))
        return np.asarray(image.resize((16, 16)), dtype=np.float64).ravel()

    images = np.stack([draw(index) for index in range(14 * 60)])
    labels = np.arange(len(images)) % 14
    half = len(images) // 2
    centroids = np.stack([images[:half][labels[:half] == label].mean(axis=0) for label in range(14)])
    guesses = ((images[half:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(guesses == labels[half:]) > 0.35  # chance is 0.07


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train": 0}, "noisy_train has 0 images; it must have at least 1"),
        ({"image_size": 8}, "image size is 8; it must be from 16 to 2048"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_bad_sizes_are_refused(tmp_path: Path, change: dict[str, int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        draw_sample(tmp_path / "sample", **{**SMALL, "seed": 1, **change})
    assert list(tmp_path.iterdir()) == []


def _draw_in_a_process(_: int) -> str:
    return str(default_sample())


def test_the_default_sample_is_drawn_once_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sample, "SampleSize", lambda: sample_size)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        folders = set(pool.map_async(_draw_in_a_process, range(6)).get(600))  # or it would wait for ever for a lost one
    assert len(folders) == 1
    folder = Path(folders.pop())
    assert folder.parent == tmp_path / "clothing1m-fl"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no half-drawn copies
    before = folder.stat().st_mtime_ns
    assert default_sample() == folder
    assert folder.stat().st_mtime_ns == before


sample_size = sample.SampleSize(train=40, clean_train=5, val=5, test=5, image_size=16)
