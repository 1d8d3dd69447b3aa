"""Networks that are not ours train with methods of every kind."""

from pathlib import Path
from typing import Any

import pytest
import torch

from config.run_config import RunConfig
from learning.method import Method
from learning.training import train_locally
from methods.ce import CE
from methods.co_teaching import CoTeaching
from methods.feddecorr import FedDecorr
from methods.xiao import Xiao
from task import Compute, build_model, derived_generator
from tests.fakes import rounds_of, run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)
LABELS = torch.arange(12) % 3
IMAGES = (LABELS * 80).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 32, 32, 3)
NOISE = torch.randint(30, IMAGES.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TOLD: dict[type, dict[str, Any]] = {Xiao: {"confusion": [value for row in torch.eye(3).tolist() for value in row]}}
METHODS = [CE(), CoTeaching(), FedDecorr(), Xiao()]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize(
    "name", ["timm:vit_tiny_patch16_224", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"]
)
def test_one_visit(name: str, method: Method) -> None:
    model = build_model(name, 3, 1, method.networks, method.heads, image_size=32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = RunConfig(model=name, image_size=32, batch_size=6, local_epochs=1, learning_rate=0.01)
    report = train_locally(
        model, IMAGES + NOISE, LABELS, method, config, CPU, derived_generator(1, "test"), told=TOLD.get(type(method))
    )
    assert report.images_seen == 12
    state = model.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    last = [key for key in state if key.endswith(".weight") and "further_heads" not in key][-1]
    assert not torch.equal(state[last], before[last])
    assert any(not torch.equal(state[key], value) for key, value in before.items() if key != last and value.ndim == 4)


def test_a_convnext_learns() -> None:
    model = build_model("convnext_tiny", 3, 1, image_size=32)
    config = RunConfig(model="convnext_tiny", image_size=32, batch_size=6, local_epochs=4, learning_rate=0.01)
    report = train_locally(model, IMAGES + NOISE, LABELS, CE(), config, CPU, derived_generator(1, "test"))
    assert report.epoch_losses[-1] < report.epoch_losses[0]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("timm:vit_tiny_patch16_224", {}),
        ("timm:vit_tiny_patch16_224", {"trainable": "lora", "trainable_args": "rank=2"}),
        ("mobilenet_v3_small", {"batchnorm": "local", "payload": "bf16"}),
        ("mnasnet0_5", {"trainable": "head"}),  # whose loading torchvision restricts
    ],
)
def test_a_run_and_another_that_starts_from_its_model(
    tmp_path: Path, tiny_sample: Path, name: str, changes: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"data_dir": str(tiny_sample), "model": name, "fraction_train": 0.5, **changes}
    first = run_in_process(tmp_path, run_name="first", image_size=32, num_server_rounds=2, **settings)
    assert [line["round"] for line in rounds_of(first) if line["round"]] == [1, 2]
    weights = str(first / "model.safetensors")
    larger = run_in_process(
        tmp_path, run_name="second", image_size=64, num_server_rounds=1, pretrained=weights, **settings
    )
    assert rounds_of(larger)[-1]["train-loss"] > 0
