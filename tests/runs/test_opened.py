"""The model of a run is opened as the run evaluated it, whatever its method, its networks and what trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.release import open_release
from learning.evaluation import evaluate
from runs.model.opened import OpenedModel, open_model
from server_app.clean_sets import load_list
from task import HEADS, Networks
from tests.fakes import rounds_of, run_in_process

KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "head": {"trainable": "head"},
    "lora": {"trainable": "lora"},
    "two networks": {"method": "co-teaching"},
    "two networks, lora": {"method": "co-teaching", "trainable": "lora"},
    "further heads": {"method": "xiao"},
    "frozen BatchNorm": {"batchnorm": "frozen", "normalization": "half"},
    "own BatchNorm": {"batchnorm": "local", "normalization": "clothing1m"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> dict[str, Path]:
    """A run of two rounds of each kind."""
    out = tmp_path_factory.mktemp("runs")
    small = {"model": "cnn", "image_size": 16, "data_dir": str(tiny_sample), "local_epochs": 1}
    return {
        kind: run_in_process(out, run_name=kind.replace(" ", "-").replace(",", ""), **small, **values)
        for kind, values in KINDS.items()
    }


def accuracy_and_loss(opened: OpenedModel, sample: Path) -> list[float]:
    assert opened.config is not None
    listed, pixels = load_list(open_release(sample), "clean_test", opened.facts.image_size, opened.config)
    labels = listed.labels.astype(np.int64)
    found = evaluate(opened.model, pixels, labels, opened.compute, opened.facts.normalization)
    return [found.accuracy, found.loss]


@pytest.mark.parametrize("kind", KINDS)
def test_it_repeats_the_numbers_of_its_round_bit_for_bit(
    kind: str, folders: dict[str, Path], tiny_sample: Path
) -> None:
    by_round = {line["round"]: [line["test-accuracy"], line["test-loss"]] for line in rounds_of(folders[kind])}
    last, best = (open_model(folders[kind], which) for which in ("last", "best"))
    for opened in (last, best):
        assert accuracy_and_loss(opened, tiny_sample) == by_round[opened.facts.round]
        assert isinstance(opened.model, Networks) == kind.startswith("two networks")
        assert not opened.model.training
        assert not any(HEADS in name or "parametrizations" in name for name, _ in opened.model.named_modules())
        assert not opened.facts.heads
    assert last.facts.round == 2
    assert last.path.name == "model.safetensors"
    assert best.path.name == "best.safetensors"
