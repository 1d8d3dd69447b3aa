"""The benchmark of differential privacy: runs differ in what trains, and the table says how much noise that gets."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.privacy import __main__ as privacy
from benchmarks.privacy.__main__ import CLIPPING_NORM, PRIVATE, TRAINS, Outcome, outcome, row, values_that_train
from config.check import examine
from config.resolve import app_defaults
from data.errors import DataError
from data.sample import SampleSize
from task import build_model

QUICK = {"image_size": 16, "num_server_rounds": 1, "evaluate_every": 1, "fraction_train": 0.04}


def test_a_head_of_resnet18_has_512_weights_and_a_bias_for_each_class() -> None:
    found = {trains: values_that_train("resnet18", trains) for trains in TRAINS}
    assert found["head"] == 14 * 513
    assert found["all"] == 11_176_512 + 14 * 513
    assert found["head"] < found["lora freeze-a"] < found["lora"] < found["all"]


def test_every_kind_is_a_run_that_the_app_accepts_and_differs_in_nothing_else(tmp_path: Path) -> None:
    allowed = {"trainable", "trainable_args", "learning_rate"}
    for kind in TRAINS.values():
        assert set(kind) <= allowed
        values = {key.replace("_", "-"): value for key, value in {**PRIVATE, **kind}.items()}
        values |= {"privacy-args": "noise-multiplier=0.1 clipping-norm=1.0", "data-dir": str(tmp_path)}
        assert examine(values, app_defaults())[1] == []


def test_the_norm_of_the_noise_is_its_deviation_times_the_root_of_the_number_of_values() -> None:
    found = [Outcome(60.0, 0.02), Outcome(63.0, 0.02)]
    trains, values, noise, norm, *accuracies = row("head", 0.1, 100, found)
    assert (trains, values, noise, accuracies) == ("head", 100, 0.1, [61.5, "60.0 63.0"])
    assert norm == pytest.approx(0.2)


def test_a_run_reports_the_noise_that_its_clients_mean_got(
    tiny_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "PRIVATE", {**PRIVATE, **QUICK})
    monkeypatch.setattr(privacy, "CLIENTS", 2)
    monkeypatch.setattr(privacy, "TRAINS", {"head": TRAINS["head"]})
    weights = tmp_path / "cnn.safetensors"
    save_file(
        {name: value.contiguous() for name, value in build_model("cnn", 14, seed=1).state_dict().items()}, weights
    )
    found = outcome(tmp_path, tiny_sample, weights, "head", 0.5, 3)
    assert found.deviation == pytest.approx(0.5 * CLIPPING_NORM / 1)  # one client a round
    assert 0 <= found.accuracy <= 100


def test_the_network_is_pretrained_once_on_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {**privacy.PRETRAINING, "num_server_rounds": 1, "local_epochs": 1}
    monkeypatch.setattr(privacy, "PRETRAINING", quick)
    monkeypatch.setattr(privacy, "ELSEWHERE", SampleSize(14, 32, 14, 14, 16, seed=2))
    kept = privacy.pretrained(tmp_path, "cnn")
    before = kept.stat().st_mtime_ns
    assert privacy.pretrained(tmp_path, "cnn").stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnn.safetensors", "elsewhere"]
    assert privacy.ELSEWHERE.seed != privacy.SAMPLE.seed


def test_an_unknown_kind_is_refused_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(privacy, "PLACE", str(tmp_path / "place"))
    threads = torch.get_num_threads()
    with pytest.raises(DataError, match=r"^--trains is 'heads'; it must be one of all, lora, lora freeze-a, head\.$"):
        privacy.main(trains=["heads"])
    assert not (tmp_path / "place").exists()
    assert torch.get_num_threads() == threads
