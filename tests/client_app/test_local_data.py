"""The images and labels that a client gets."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from client_app import local_data
from client_app.local_data import Site
from config.run_config import RunConfig
from data.errors import DataError
from data.images.loading import load_images
from data.release import NOISY_LABELS, open_release

NODES = [{"partition-id": client, "num-partitions": 4} for client in range(4)]


def _config(folder: Path, **values: object) -> RunConfig:
    return RunConfig(**{"data_dir": str(folder), "batch_size": 8, **values})  # type: ignore[arg-type]


def test_slices_partition_the_split(tiny_sample: Path) -> None:
    config = _config(tiny_sample)
    splits = [local_data.training_data(Site.resolve(node, config), config) for node in NODES]
    keys = np.concatenate([split.keys for split in splits])
    assert sorted(keys.tolist()) == sorted(open_release(tiny_sample).split("noisy_train").keys.tolist())


def test_only_clients_that_partition_the_same_list_have_the_same_digest(tiny_sample: Path, tmp_path: Path) -> None:
    def digest(node: dict[str, int], folder: Path = tiny_sample, **values: object) -> str:
        config = _config(folder, **values)
        return local_data.deal_digest(Site.resolve(node, config), config)

    copied, other = tmp_path / "copied", tmp_path / "other"
    shutil.copytree(tiny_sample, copied)
    shutil.copytree(tiny_sample, other)
    labels = other / NOISY_LABELS
    shown = [line.rpartition(" ") for line in labels.read_text().splitlines()]
    labels.write_text("".join(f"{key} {(int(label) + 1) % 14}\n" for key, _, label in shown))
    assert len({digest(node) for node in NODES} | {digest(NODES[1], copied)}) == 1
    assert digest({}) == ""
    changes = [{"seed": 2}, {"partition": "shards"}, {"train_split": "clean"}, {"folder": other}]
    assert len({digest(NODES[0], **change) for change in [{}, *changes]}) == 5  # type: ignore[arg-type]


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
def test_an_incomplete_node_config_is_refused(tiny_sample: Path, node: dict[str, int], sentence: str) -> None:
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


def test_all_processes_of_a_machine_decode_pixels_once(tiny_sample: Path, tmp_path: Path) -> None:
    config = _config(tiny_sample, image_size=16, cache_dir=str(tmp_path / "decoded"))
    site = Site.resolve(NODES[1], config)
    split = local_data.training_data(site, config)
    first = local_data.training_pixels(site, split, config).whole()
    assert np.array_equal(first, load_images(open_release(tiny_sample), split.keys, 16))
    local_data._cache.cache_clear()  # what a new process starts with
    assert np.array_equal(local_data.training_pixels(site, split, config).whole(), first)
    assert [path.stat().st_size for path in (tmp_path / "decoded").glob("*.pixels")] == [first.nbytes]


def test_a_node_can_have_its_own_cache(tiny_sample: Path, tmp_path: Path) -> None:
    config = _config(tiny_sample, cache_dir="/the/runs", cache_gib=3.0)
    assert Site.resolve({}, config).cache_dir == Path("/the/runs")
    assert Site.resolve({}, config).cache_bytes == 3 << 30
    site = Site.resolve({"cache-dir": str(tmp_path), "cache-gib": 0.5}, config)
    assert (site.cache_dir, site.cache_bytes) == (tmp_path, 1 << 29)
    with pytest.raises(DataError, match=r"node config: 'cache-gib' is -1; it must be a number of at least 0\."):
        Site.resolve({"cache-gib": -1}, config)


def test_true_labels_are_kept_for_scoring(tiny_sample: Path) -> None:
    config = _config(tiny_sample, label_noise="symmetric", label_noise_args="rate=0.5")
    split = local_data.training_data(Site.resolve(NODES[0], config), config)
    whole = open_release(tiny_sample).split("noisy_train")
    known = dict(zip(whole.keys.tolist(), whole.true.tolist(), strict=True))
    assert split.true.tolist() == [known[key] for key in split.keys.tolist()]
    assert 0.6 < np.mean(split.true != split.labels) < 0.95  # the sample's own 38 %, plus half of the rest


def test_a_site_says_if_its_cache_is_too_small(
    tiny_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    config = _config(tiny_sample, image_size=16, cache_dir=str(tmp_path / "decoded"))
    enough = 120 * 16 * 16 * 3 / 2**30
    for node in ({}, {"cache-gib": enough}, {"cache-gib": 0.9 * enough}, {"cache-gib": 0.0, **NODES[0]}):
        local_data.look_at_images(Site.resolve(node, config), config)
    assert caplog.messages == [
        "The cache cannot hold the 120 training images: decoded, they take 8.58e-05 GiB, and 'cache-gib' is 7.72e-05."
        " Each visit decodes them anew, in about 0 s of one core."
    ]


def test_processes_of_a_run_share_what_it_keeps(tiny_sample: Path, tmp_path: Path) -> None:
    """In deployment each message starts a process; the run's name tells the cache that they belong together."""
    config = _config(tiny_sample, image_size=16, cache_dir=str(tmp_path / "decoded"))
    bytes_each = 30 * 16 * 16 * 3
    kept = []
    for node in NODES * 2:
        site = Site.resolve({**node, "cache-gib": 2 * bytes_each / 2**30}, config, "run 1")
        local_data._cache.cache_clear()
        split = local_data.training_data(site, config)
        assert local_data.training_pixels(site, split, config).shape == (30, 16, 16, 3)
        kept.append(sorted(path.name for path in (tmp_path / "decoded").glob("*.pixels")))
    assert [len(names) for names in kept[:2]] == [1, 2]
    assert kept[1:] == [kept[1]] * (len(kept) - 1)
