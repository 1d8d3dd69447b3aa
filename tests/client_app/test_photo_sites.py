"""A site whose `data-dir` is a folder of photos per class, or a release without clean lists."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client_app import local_data
from client_app.local_data import Site
from config.run_config import RunConfig
from data.errors import DataError
from data.images.decode import decode
from data.images.photo import read_photo
from data.sources.folder import Shares, import_folder
from tests.fakes import rounds_of, run_in_process

SIZES = {"coats": 6, "scarves": 0, "shirts": 10}
OWN: dict[str, Any] = {"fraction_evaluate": 1.0, "eval_split": "own", "holdout_fraction": 0.25}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos as phones take them: every other one lies."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(1)
    for name, count in SIZES.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
            image.save(tmp_path / "photos" / name / f"IMG {number}.jpg", exif=exif if number % 2 else Image.Exif())
    return tmp_path / "photos"


def test_a_folder_of_photos_is_a_site(photos: Path, tmp_path: Path) -> None:
    config = RunConfig(image_size=28, batch_size=4, cache_dir=str(tmp_path / "cache"), **OWN)
    site = Site.resolve({"data-dir": str(photos)}, config)
    assert local_data.class_names(site) == tuple(SIZES)
    trained_on, own = local_data.training_data(site, config), local_data.held_out_data(site, config)
    keys = [*trained_on.keys.tolist(), *own.keys.tolist()]
    assert (len(trained_on.keys), len(own.keys), len(set(keys))) == (12, 4, 16)
    assert local_data.evaluation_data(site, config).keys.tolist() == own.keys.tolist()
    labels = np.concatenate([trained_on.labels, own.labels])
    assert np.bincount(labels).tolist() == list(SIZES.values())
    for key, label in zip(keys, labels.tolist(), strict=True):
        assert key.decode().split("/")[1] == list(SIZES)[label]
    local_data.look_at_images(site, config)
    pixels = local_data.training_pixels(site, trained_on, config).take(np.arange(12))
    for key, seen in zip(trained_on.keys.tolist(), pixels, strict=True):
        path = photos / key.decode().removeprefix("images/").replace("%20", " ")
        assert np.array_equal(seen, read_photo(path))
        lies = int(path.stem[-1]) % 2 == 1
        assert np.array_equal(seen, decode(path.read_bytes())) != lies


def test_without_clean_lists_a_site_says_what_it_cannot_do(photos: Path, tmp_path: Path) -> None:
    import_folder(photos, tmp_path / "release", Shares(only="noisy_train"), 0.0, seed=1)
    for root in (photos, tmp_path / "release"):
        own = RunConfig(image_size=16, batch_size=4, **OWN)
        assert len(local_data.training_data(Site.resolve({"data-dir": str(root)}, own), own).keys) == 12
        config = RunConfig(image_size=16, batch_size=4, fraction_evaluate=1.0)
        with pytest.raises(
            DataError, match=rf"{root.name} has no clean_val_key_list\.txt; without it .* must be own if"
        ):
            local_data.evaluation_data(Site.resolve({"data-dir": str(root)}, config), config)
        clean = RunConfig(image_size=16, batch_size=4, train_split="clean")
        with pytest.raises(DataError, match=rf"{root.name} has no clean_train_key_list\.txt; .*'train-split' must be"):
            local_data.training_data(Site.resolve({"data-dir": str(root)}, clean), clean)


def test_a_run_on_folders_of_photos_needs_no_clean_list(photos: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"model": "cnn", "image_size": 16, "batch_size": 2, "fraction_train": 1.0, **OWN}
    unclean: dict[str, Any] = {
        "data_dir": str(photos),
        "test_split": "none",
        "val_split": "none",
        "num_server_rounds": 1,
    }
    (one,) = rounds_of(run_in_process(tmp_path / "runs", 2, **values, **unclean))
    assert one["num-examples"] == 12
    assert one["test-accuracy"] is None
    assert 0 <= one["own-accuracy-after"] <= 1
