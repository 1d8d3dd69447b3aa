"""The snippets of docs/reading-results.md, on files as a run writes them."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from flwr.app import Array, ArrayRecord

from server_app.callbacks import History, RoundResult
from tests.docs.pages import ROOT, module_of, run

PAGE = ROOT / "docs" / "reading-results.md"
CONFUSION = np.array([[5, 2, 0], [1, 6, 0], [0, 3, 4]])


def _module(path: str) -> Any:
    return importlib.import_module(module_of(path))


@pytest.mark.parametrize("networks", [1, 2])
def test_snippets_read_what_a_run_wrote(
    tmp_path: Path,
    tiny_sample: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    networks: int,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = _module("data/release.py").open_release(tiny_sample).class_names
    config = _module("config/run_config.py").RunConfig(model="cnn", image_size=16)
    model = _module("task.py").build_model("cnn", len(names), seed=3, networks=networks)
    folder = tmp_path / "clothing1m-fl-runs" / "my-run"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(tomli_w.dumps(config.to_flat()), encoding="utf-8")
    arrays = ArrayRecord({name: Array(value.numpy()) for name, value in model.state_dict().items()})
    evaluation = _module("learning/evaluation.py").Evaluation
    callbacks = [
        _module("server_app/callbacks/metrics_file.py").MetricsFile(folder / "metrics.jsonl"),
        _module("server_app/callbacks/checkpoints.py").Checkpoints(folder / "checkpoints", config.to_flat(), "roll"),
        _module("server_app/callbacks/latest_model.py").LatestModel(folder / "model.safetensors", names, config),
    ]
    for callback in callbacks:
        callback.on_start(History())
        for server_round in (1, 2):
            callback.after_round(
                RoundResult(
                    server_round=server_round, arrays=arrays, test=evaluation(1.5, CONFUSION),
                    validation=evaluation(1.0, CONFUSION), train_loss=0.7, num_examples=20, seconds=10.0,
                    slowest_client_seconds=6.0, slowest_training_seconds=5.0, evaluation_seconds=2.0, images_seen=120,
                    images_per_second=12.0, sampled_partitions=[0, 1], pick=(1, 15 / 21),
                )
            )  # fmt: skip
        callback.on_end()

    run(PAGE)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "round 2: 71.4%, mean of the last five 71.4%"
    assert printed[1] == f"accuracy on clean test: { ({1: 15 / 21, 2: 15 / 21}) }"
    assert printed[2] == "3 of 7 test images of class 2 were taken for class 1"
    assert printed[3] == "ce auto 1"
    assert printed[4] == f"round 1; best round and validation accuracy: (1, {15 / 21})"
    count, size = len(model.state_dict()), sum(value.nbytes for value in model.state_dict().values())
    assert printed[5] == f"{count} arrays, {size:,} bytes"
