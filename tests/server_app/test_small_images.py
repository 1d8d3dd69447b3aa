"""All that CIFAR asks for at once: stem, crops, measured normalization, and clients that are groups of the dataset."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runs.model.judging import judge
from runs.model.labelled import Labelled
from runs.model.opened import open_model
from tests.fakes import CutOffError, cut_off_in, outcome_of, rounds_of, run_in_process

SETTINGS: dict[str, Any] = {
    "model": "resnet18", "image_size": 16, "stem": "auto", "normalization": "release", "augmentation": "pad-crop-flip",
    "partition": "natural", "label_noise": "symmetric", "label_noise_args": "min-rate=0.0 max-rate=0.4",
    "bad_images": "skip", "holdout_fraction": 0.2, "drop_last": True, "num_server_rounds": 2,
}  # fmt: skip

BESIDE: dict[str, dict[str, Any]] = {
    "two networks": {"method": "co-teaching"},
    "adapters": {"method": "elr", "trainable": "lora", "trainable_args": "rank=2"},
    "a BatchNorm of each client's own": {"method": "elr", "batchnorm": "local"},
    "privacy": {
        "method": "ce", "privacy": "client-adaptive",
        "privacy_args": "noise-multiplier=0.1 clipped-count-stddev=1 initial-clipping-norm=0.2",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    """The sample of 120 noisy images, of four groups, one of whose images is empty."""
    root = Path(shutil.copytree(tiny_sample, tmp_path_factory.mktemp("groups") / "release"))
    keys = (root / "noisy_train_key_list.txt").read_text().split()
    numbers = np.repeat(np.arange(4), [40, 35, 25, 20])
    (root / "group_kv.txt").write_text("".join(f"{key} {one}\n" for key, one in zip(keys, numbers, strict=True)))
    (root / "group_names.txt").write_text("a\nb\nc\nd")
    (root / keys[50]).write_bytes(b"")
    return root


@pytest.mark.parametrize("more", BESIDE.values(), ids=BESIDE)
def test_killed_and_resumed_it_is_the_same_and_its_model_answers_as_in_the_run(
    tmp_path: Path, groups: Path, more: dict[str, Any]
) -> None:
    settings = {**SETTINGS, **more, "data_dir": str(groups)}
    whole = run_in_process(tmp_path / "whole", **settings)
    with pytest.raises(CutOffError):
        run_in_process(tmp_path / "cut", handler=cut_off_in(3), resume="auto", **settings)
    resumed = run_in_process(tmp_path / "cut", resume="auto", **settings)
    assert outcome_of(resumed) == outcome_of(whole)
    opened = open_model(resumed)
    assert opened.facts.small_stem
    last = rounds_of(whole)[-1]
    found = judge(opened, Labelled.of_run(opened)).evaluation
    assert (found.accuracy, found.loss) == (last["test-accuracy"], last["test-loss"])
