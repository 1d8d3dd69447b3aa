"""Runs whose clients train a head: on features that they keep, with the same result whatever is there."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from safetensors.numpy import load_file
from torch import nn

from client_app import local_data, visit_inputs
from client_app.app import app as client_app
from data.images import decoded_cache
from data.images.loading import load_images
from data.release import Release
from learning.frozen_features import features_of_bodies
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

ROUNDS = 3
Outcome = tuple[list[dict[str, Any]], dict[str, str]]


def run(out: Path, sample: Path, cache: Path, **changes: Any) -> Path:
    local_data._cache.cache_clear()  # as a new process would begin
    settings = {
        "model": "cnn", "image_size": 16, "num_server_rounds": ROUNDS, "trainable": "head", "augmentation": "none",
        "cache_dir": str(cache), "data_dir": str(sample), "method": "elr",
    }  # fmt: skip
    return run_in_process(out, **{**settings, **changes})


@pytest.fixture(scope="module")
def undisturbed_run(tiny_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that computes its features, and keeps them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(folder / "out", tiny_sample, folder / "cache")


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run: Path) -> Outcome:
    return outcome_of(undisturbed_run)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each computing of features had."""
    counts: list[int] = []

    def counting(model: nn.Module, inference: Any) -> torch.Tensor:
        counts.append(len(inference.images))
        return features_of_bodies(model, inference)

    monkeypatch.setattr(visit_inputs, "features_of_bodies", counting)
    return counts


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images clients decoded at a time."""
    counts: list[int] = []

    def counting(release: Release, keys: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        if len(keys) in (30, 3):  # the server has lists of 12 and 40
            counts.append(len(keys))
        return load_images(release, keys, *args, **kwargs)

    monkeypatch.setattr(decoded_cache, "load_images", counting)
    return counts


def before_training(do: Callable[[], object]) -> Callable[[Message, Context], Message]:
    """A client before each of whose visits something happens."""

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            do()
        return client_app(message, context)

    return handler


def delete(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def test_each_image_goes_through_the_body_once(
    tiny_sample: Path, tmp_path: Path, undisturbed: Outcome, computed: list[int], decoded: list[int]
) -> None:
    first = run(tmp_path / "a", tiny_sample, tmp_path / "cache", fraction_train=1.0)
    assert computed == [30] * 4
    assert decoded == [30] * 4
    delete(tmp_path / "cache", "*.pixels")
    again = run(tmp_path / "b", tiny_sample, tmp_path / "cache", fraction_train=1.0)
    assert computed == [30] * 4
    assert decoded == [30] * 4  # not in the roll call either
    assert outcome_of(again) == outcome_of(first)


def test_evaluation_still_looks_at_images(tiny_sample: Path, tmp_path: Path, decoded: list[int]) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, tiny_sample, tmp_path / "cache", fraction_train=1.0, fraction_evaluate=1.0)
        delete(tmp_path / "cache", "*.pixels")
    assert sorted(decoded) == [3] * 8 + [30] * 4


@pytest.mark.parametrize("lost", ["*.features", "*.*"])
def test_a_lost_file_changes_nothing(
    tiny_sample: Path, tmp_path: Path, undisturbed: Outcome, computed: list[int], lost: str
) -> None:
    cache = tmp_path / "cache"
    run_dir = run(tmp_path, tiny_sample, cache, handler=before_training(lambda: delete(cache, lost)))
    assert len(computed) == 2 * ROUNDS
    assert outcome_of(run_dir) == undisturbed


def test_a_damaged_file_changes_nothing(
    tiny_sample: Path, tmp_path: Path, undisturbed: Outcome, computed: list[int]
) -> None:
    def damage() -> None:
        for path in (tmp_path / "cache").glob("*.features"):
            path.write_bytes(bytes(path.stat().st_size))

    assert outcome_of(run(tmp_path, tiny_sample, tmp_path / "cache", handler=before_training(damage))) == undisturbed
    assert len(computed) == 2 * ROUNDS


def test_without_a_cache(tiny_sample: Path, tmp_path: Path, undisturbed: Outcome, computed: list[int]) -> None:
    assert outcome_of(run(tmp_path, tiny_sample, tmp_path / "cache", cache_gib=0.0)) == undisturbed
    assert len(computed) == 2 * ROUNDS
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written(
    tiny_sample: Path, tmp_path: Path, undisturbed: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert outcome_of(run(tmp_path, tiny_sample, tmp_path / "cache")) == undisturbed
    assert "images are decoded anew in each visit" in caplog.text
    assert "features are computed anew" not in caplog.text  # a process says it once


@pytest.mark.parametrize("lost", [False, True])
def test_resumed(tiny_sample: Path, tmp_path: Path, undisturbed: Outcome, lost: bool) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(CutOffError):
        run(tmp_path, tiny_sample, cache, handler=cut_off_in(4))
    if lost:
        delete(cache, "*.*")
    run_dir = run(tmp_path, tiny_sample, cache, resume="auto")
    assert outcome_of(run_dir) == undisturbed


def test_as_with_the_whole_network(
    tiny_sample: Path, tmp_path: Path, undisturbed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit_inputs, "keeps_features", lambda method, config: False)
    run_dir = run(tmp_path, tiny_sample, tmp_path / "cache")
    weights, kept = (load_file(one / "model.safetensors") for one in (run_dir, undisturbed_run))
    assert weights.keys() == kept.keys()
    for name, value in weights.items():
        if name.startswith("fc."):
            np.testing.assert_allclose(kept[name], value, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(kept[name], value)
    for line, expected in zip(rounds_of(run_dir), rounds_of(undisturbed_run), strict=True):
        assert line["train-loss"] == pytest.approx(expected["train-loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"method": "co-teaching"}, 1),
        ({"method": "ce", "augmentation": "flip"}, 0),
        ({"method": "ce", "method_args": "mixup=0.5"}, 0),
        ({"method": "ce", "trainable": "lora"}, 0),
        ({"method": "dividemix"}, 0),
    ],
)
def test_which_runs_keep_features(tiny_sample: Path, tmp_path: Path, changes: dict[str, Any], kept: int) -> None:
    run(tmp_path, tiny_sample, tmp_path / "cache", clients=1, num_server_rounds=1, fraction_train=1.0, **changes)
    assert len(list((tmp_path / "cache").glob("*.features"))) == kept


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"normalization": "clothing1m"}, {"image_size": 24}, {"precision": "bf16"}]
)
def test_what_else_decides_features(tiny_sample: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """With another seed it is the body, whose weights are drawn; here a single client has all images."""
    settings = {"clients": 1, "num_server_rounds": 1, "fraction_train": 1.0, "method": "ce", "seed": 0}
    for number, more in enumerate(({}, {"local_epochs": 2, "learning_rate": 0.5}, changes)):
        run(tmp_path / str(number), tiny_sample, tmp_path / "cache", **{**settings, **more})
    assert len(list((tmp_path / "cache").glob("*.features"))) == 2


def test_another_file_of_an_image(tiny_sample: Path, tmp_path: Path, computed: list[int]) -> None:
    settings = {"clients": 1, "num_server_rounds": 1, "fraction_train": 1.0}
    run(tmp_path / "a", tiny_sample, tmp_path / "cache", **settings)
    path = next(path for path in sorted(tiny_sample.rglob("*.jpg")))
    before = path.stat()
    try:
        for image in tiny_sample.rglob("*.jpg"):
            os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        run(tmp_path / "b", tiny_sample, tmp_path / "cache", **settings)
    finally:
        for image in tiny_sample.rglob("*.jpg"):
            os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert computed == [120, 120]
