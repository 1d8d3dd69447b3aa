"""Which images and labels a client gets."""

from pathlib import Path

import numpy as np
import pytest

from client_app import local_data
from client_app.local_data import Site
from config import RunConfig
from data.errors import DataError
from data.images import load_images
from data.release import Release, open_release

NODES = [{"partition-id": client, "num-partitions": 4} for client in range(4)]


def _config(folder: Path, **values: object) -> RunConfig:
    return RunConfig(**{"data_dir": str(folder), "batch_size": 8, **values})  # type: ignore[arg-type]


def test_slices_share_the_split_out(tiny_sample: Path) -> None:
    config = _config(tiny_sample)
    splits = [local_data.training_data(Site.resolve(node, config), config) for node in NODES]
    keys = np.concatenate([split.keys for split in splits])
    assert sorted(keys.tolist()) == sorted(open_release(tiny_sample).split("noisy_train").keys.tolist())


def test_a_node_without_partition_holds_all_of_its_own_folder(tiny_sample: Path) -> None:
    config = _config(Path("/somewhere/else"))
    site = Site.resolve({"data-dir": str(tiny_sample)}, config)
    assert len(local_data.training_data(site, config).keys) == 120
    assert len(local_data.evaluation_data(site, config).keys) == 12


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"partition-id": 1}, "'partition-id' is given alone"),
        ({"num-partitions": 1}, "'num-partitions' is given alone"),
        ({"partition-id": 4, "num-partitions": 4}, "'partition-id' is 4; it must be from 0 to 3"),
    ],
)
def test_half_a_node_config_is_refused(tiny_sample: Path, node: dict[str, int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Site.resolve(node, _config(tiny_sample))


def test_label_noise_changes_labels_of_clients_and_not_of_the_release(tiny_sample: Path) -> None:
    clean = _config(tiny_sample, train_split="clean", batch_size=2)
    noisy = _config(
        tiny_sample, train_split="clean", batch_size=2, label_noise="symmetric",
        label_noise_args="min-rate=0.0 max-rate=0.8",
    )  # fmt: skip
    changed = []
    for node in NODES:
        site = Site.resolve(node, clean)
        before, after = local_data.training_data(site, clean), local_data.training_data(site, noisy)
        assert np.array_equal(before.keys, after.keys)
        changed.append(int((before.labels != after.labels).sum()))
    assert changed == [0, 1, 2, 3]  # floor of five labels times 0, 0.2, 0.4, 0.6
    assert np.array_equal(local_data.training_data(site, clean).labels, before.labels)


def test_pixels_are_decoded_once_and_the_cache_stays_within_its_bound(
    tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counting(release: Release, keys: np.ndarray, size: int, threads: int) -> np.ndarray:
        decoded.append(len(keys))
        return load_images(release, keys, size, threads)

    monkeypatch.setattr(local_data, "load_images", counting)
    monkeypatch.setattr(local_data, "IMAGE_CACHE_BYTES", 2 * 30 * 16 * 16 * 3)  # two clients' images
    local_data._images.clear()
    config = _config(tiny_sample, image_size=16)
    sites = [Site.resolve(node, config) for node in NODES]
    splits = [local_data.training_data(site, config) for site in sites]

    def load(client: int) -> np.ndarray:
        return local_data.training_pixels(sites[client], splits[client], config)

    first = load(0)
    assert load(0) is first
    load(1)
    assert load(0) is first
    assert decoded == [30, 30]
    load(2)  # there is room for two: the least recently used, client 1, goes
    assert load(0) is first
    load(1)
    assert decoded == [30, 30, 30, 30]
    held = sum(array.nbytes for array in local_data._images.values())
    assert held <= local_data.IMAGE_CACHE_BYTES
    local_data._images.clear()
