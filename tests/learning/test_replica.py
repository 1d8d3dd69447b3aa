"""The model that a process keeps."""

import copy
import shutil

import pytest
import torch

from config.run_config import ConfigError, RunConfig
from learning.adamw import LocalAdamW
from learning.network import NetworkSpec
from learning.replica import check_compiler, kept_replica
from learning.training import train_locally
from methods.ce import CE
from task import Compute, derived_generator

CPU = Compute(torch.device("cpu"), torch.float32)


def test_one_replica_is_kept_until_another_is_needed() -> None:
    five, six = NetworkSpec("resnet18", 5), NetworkSpec("resnet18", 6)
    first = kept_replica(five, CPU.device, False)
    assert kept_replica(five, CPU.device, False) is first
    assert kept_replica(six, CPU.device, False).model.fc.out_features == 6  # type: ignore[union-attr]
    assert kept_replica(five, CPU.device, False) is not first


def test_a_replica_keeps_its_optimiser_until_the_run_asks_for_another() -> None:
    replica = kept_replica(NetworkSpec("cnn", 5), CPU.device, False)
    sgd = replica.optimizer(RunConfig())
    assert replica.optimizer(RunConfig(learning_rate=0.5, momentum=0.0)) is sgd  # which `begin` takes
    for values in ({"optimizer_args": "nesterov=true"}, {"optimizer": "adamw"}):
        other = replica.optimizer(RunConfig(**values))  # type: ignore[arg-type]
        assert other is not sgd
        assert replica.optimizer(RunConfig(**values)) is other  # type: ignore[arg-type]
    assert isinstance(other, LocalAdamW)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_model_trains_like_the_plain_one() -> None:
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=derived_generator(1, "images"))
    labels = torch.arange(8) % 5
    config = RunConfig(model="cnn", image_size=32, batch_size=4, learning_rate=0.001)
    plain = copy.deepcopy(kept_replica(NetworkSpec("cnn", 5), CPU.device, False).model)
    compiled = kept_replica(NetworkSpec("cnn", 5), CPU.device, True)
    assert compiled.model.state_dict().keys() == plain.state_dict().keys()
    reports = [
        train_locally(model, images, labels, CE(), config, CPU, derived_generator(1, "t"))
        for model in (plain, compiled.model)
    ]
    assert reports[0].epoch_losses == pytest.approx(reports[1].epoch_losses, rel=1e-3)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    kept_replica.cache_clear()


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="'compile' is true, but this machine has no C\\+\\+ compiler"):
        check_compiler()
