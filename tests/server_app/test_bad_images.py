"""An image that cannot be read: the run stops and says so, or goes on without it and says that."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app import local_data
from client_app.local_data import Site
from config.run_config import RunConfig
from data.errors import BadImageError, DataError
from data.release import LIST_FILES, open_release
from server_app.bad_images import left_out
from server_app.callbacks import History
from server_app.callbacks.contributions import Contributions
from server_app.members import Member
from server_app.stopping import RunStoppedError
from tests.fakes import outcome_of, rounds_of, run_in_process

NODES = [{"partition-id": client, "num-partitions": 4} for client in range(4)]


@pytest.fixture
def root(tiny_sample: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_sample, tmp_path / "release")
    return tmp_path / "release"


def config_of(root: Path, **values: Any) -> RunConfig:
    return RunConfig(**{"data_dir": str(root), "batch_size": 8, "image_size": 16, **values})


def key_of(root: Path, split: str = "noisy_train", row: int = 3) -> str:
    return (root / LIST_FILES[split]).read_text().splitlines()[row]


def spoil(root: Path, split: str = "noisy_train", row: int = 3) -> Path:
    """Cut off the end of an image file."""
    path = root / key_of(root, split, row)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def holder_of(root: Path, key: str) -> int:
    """The client that holds an image, found without decoding any."""
    config = config_of(root)
    held = [local_data._dealt(Site.resolve(node, config), config).keys.tolist() for node in NODES]
    return next(client for client, theirs in enumerate(held) if key.encode() in theirs)


def log_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_by_default_the_run_stops_before_round_1(root: Path, tmp_path: Path) -> None:
    path, client = spoil(root), holder_of(root, key_of(root))
    with pytest.raises(RunStoppedError) as caught:
        run_in_process(tmp_path, data_dir=str(root))
    assert str(caught.value) == (
        f"client {client}: image {key_of(root)} cannot be read from {path} (it is truncated); it must be a whole image"
        " file; with 'bad-images' as 'skip', a new run leaves it out."
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("train", [True, False])
def test_in_a_large_release_the_first_visit_stops_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: bool
) -> None:
    monkeypatch.setattr(local_data, "LOOKED_AT", 100)
    path = spoil(root) if train else spoil(root, "clean_val")
    with pytest.raises((RunStoppedError, DataError), match=f"cannot be read from {path} .*'bad-images' as 'skip'"):
        run_in_process(tmp_path, data_dir=str(root), fraction_train=1.0, fraction_evaluate=1.0, val_split="none")
    failures = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [str(path) in entry["reason"] for entry in failures] == [True]


@pytest.mark.parametrize("split", ["clean_test", "clean_val"])
def test_the_servers_images_too(root: Path, tmp_path: Path, split: str, caplog: pytest.LogCaptureFixture) -> None:
    path = spoil(root, split)
    with pytest.raises(DataError, match=f"cannot be read from {path} .*; with 'bad-images' as 'skip', a new run"):
        run_in_process(tmp_path, data_dir=str(root), run_name="refused")
    caplog.clear()
    caplog.set_level(logging.INFO)
    run_dir = run_in_process(tmp_path, data_dir=str(root), run_name="skipped", bad_images="skip")
    remain = {"clean_test": 39, "clean_val": 11}[split]
    said = [
        line for line in log_of(caplog) if line.startswith(f"{split}: 1 images are left out, and {remain} remain; ")
    ]
    assert len(said) == 1
    assert str(path) in said[0]
    tested = np.array(rounds_of(run_dir)[0]["confusion-matrix"]).sum()
    assert tested == (39 if split == "clean_test" else 40)


def test_skip_leaves_it_out_counted_and_named(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, client = spoil(root), holder_of(root, key_of(root))
    caplog.set_level(logging.INFO)
    settings: dict[str, Any] = {"data_dir": str(root), "fraction_train": 1.0, "bad_images": "skip"}
    run_dir = run_in_process(tmp_path, run_name="one", **settings)
    assert [entry["num-examples"] for entry in rounds_of(run_dir)] == [119, 119]
    assert [entry["failed-partitions"] for entry in rounds_of(run_dir)] == [[], []]
    assert "'bad-images' is 'skip': 1 images of 1 of 4 clients are left out." in log_of(caplog)
    [line] = [line for line in log_of(caplog) if line.startswith(f"client {client} leaves out 1; the first: image ")]
    assert str(path) in line
    # The same without a cache and its notes, and where the image was never listed as far as this client knows.
    again = run_in_process(tmp_path, run_name="two", cache_gib=0.0, cache_dir=str(tmp_path / "other"), **settings)
    assert outcome_of(again) == outcome_of(run_dir)


def test_skip_changes_nothing_of_a_sound_release(tiny_sample: Path, tmp_path: Path) -> None:
    one, two = (
        run_in_process(tmp_path, data_dir=str(tiny_sample), run_name=name, bad_images=name)
        for name in ("refuse", "skip")
    )
    assert outcome_of(one) == outcome_of(two)


@pytest.mark.parametrize("damage", ["cut", "missing", "a folder"])
def test_the_other_images_keep_their_labels(root: Path, damage: str) -> None:
    """Partition and label noise are drawn over all images, so that damage changes nothing for the others."""
    config = config_of(root, bad_images="skip", label_noise="symmetric", label_noise_args="rate=0.5")
    key = key_of(root)
    site = Site.resolve(NODES[holder_of(root, key)], config)
    before = local_data.training_data(site, config)
    assert local_data.bad_images(site, config) == []
    path = spoil(root)
    if damage != "cut":
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    local_data._cache.cache_clear()  # as a new process would begin
    after = local_data.training_data(site, config)
    rows = before.keys != key.encode()
    assert rows.sum() == len(after.keys) == len(before.keys) - 1
    assert np.array_equal(after.keys, before.keys[rows])
    assert np.array_equal(after.labels, before.labels[rows])
    assert after.digest != before.digest
    [sentence] = local_data.bad_images(site, config)
    assert key in sentence
    assert str(path) in sentence
    assert local_data.training_pixels(site, after, config).shape[0] == len(after.keys)


def test_what_one_process_found_the_next_one_knows(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(root)
    config = config_of(root, bad_images="skip", cache_dir=str(tmp_path / "cache"))
    site = Site.resolve(NODES[holder_of(root, key_of(root))], config)
    found = local_data.bad_images(site, config)
    assert len(found) == 1
    local_data._cache.cache_clear()
    monkeypatch.setattr("data.images.decoded_cache.load_images", None)
    monkeypatch.setattr("data.images.decoded_cache.unreadable_images", None)
    assert local_data.bad_images(site, config) == found
    [note] = (tmp_path / "cache").glob("*.bad")
    for damage in (b"", b"[]", b'{"x": "y"}', bytes(30), b'{"900": "y"}'):
        note.write_bytes(damage)
        with pytest.raises(TypeError, match="not callable"):
            local_data.bad_images(site, config)


def test_a_client_whose_images_are_all_bad_is_refused(root: Path) -> None:
    config = config_of(root, bad_images="skip")
    site = Site.resolve(NODES[0], config)
    for key in local_data.training_data(site, config).keys.tolist():
        (root / key.decode()).write_bytes(b"")
    local_data._cache.cache_clear()
    with pytest.raises(DataError, match=r"none of 30 images of noisy_train can be read; the first: image .* is empty"):
        local_data.training_data(site, config)


def test_a_batch_must_fit_what_remains(root: Path) -> None:
    spoil(root)
    config = config_of(root, bad_images="skip", batch_size=30)
    with pytest.raises(DataError, match="holds only 29 images"):
        local_data.training_data(Site.resolve(NODES[holder_of(root, key_of(root))], config), config)


def test_too_many_open_files_are_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_release(root).store
    key = key_of(root).encode()
    assert store.encoded(key)

    def busy(*_: object) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("data.stores.folder.os.open", busy)
    with pytest.raises(DataError, match="Too many open files") as caught:
        store.encoded(key)
    assert not isinstance(caught.value, BadImageError)


def test_no_real_node_ends_a_run_by_a_damaged_image(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out whenever it is asked, and named at the end."""
    monkeypatch.setattr(local_data, "LOOKED_AT", 0)
    monkeypatch.setattr("server_app.app.is_remote", lambda grid: True)
    spoil(root)
    client = holder_of(root, key_of(root))
    caplog.set_level(logging.INFO)
    run_dir = run_in_process(tmp_path, data_dir=str(root), fraction_train=1.0)
    assert [entry["failed-partitions"] for entry in rounds_of(run_dir)] == [[client], [client]]
    [line] = [line for line in log_of(caplog) if "never contributed" in line]
    assert line.startswith(f"Client {client} was asked in 2 rounds and never contributed: client {client}: image ")


def test_clients_that_never_contributed_are_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    contributions = Contributions(30)
    lines: list[dict[str, Any]] = [
        {"sampled-partitions": [0, 1, 2]},
        {"sampled-partitions": [2, 29]},
        {},
        {"sampled-partitions": ["x", None]},
    ]
    contributions.on_start(History(4, lines, visits={0: 1, 29: 2}))
    contributions.on_end()
    assert log_of(caplog) == [
        "Client 1 was asked in 1 round and never contributed: failures.jsonl has the reasons.",
        "Client 2 was asked in 2 rounds and never contributed: failures.jsonl has the reasons.",
        "Never sampled: 26 of 30 clients (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...).",
    ]
    caplog.clear()
    fresh = Contributions(3)
    fresh.on_start(History())
    fresh.on_end()
    assert not caplog.records


def test_lines_about_many_clients_are_few() -> None:
    members = [Member(i, i, 9, np.ones(2), "cpu", bad_images=i, first_bad=f"image {i}.") for i in range(30)]
    lines = left_out(members)
    assert lines[0] == "'bad-images' is 'skip': 435 images of 29 of 30 clients are left out."
    assert lines[1] == "client 1 leaves out 1; the first: image 1."
    assert lines[-1] == "... and 17 more clients"
    assert len(lines) == 14
    assert left_out(members[:1]) == []
