"""Losses of fixed visits, checked in: a change that moves them changes results, and must say so.

``python -m tests.learning.test_golden_losses`` rewrites them. Processors sum in different orders, so losses on other
machines differ in late digits, in bf16 in earlier ones; each case states its tolerance.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from config.run_config import RunConfig
from learning.augmentation import stored_size
from learning.training import train_locally
from methods.ce import CE
from task import Compute, build_model, derived_generator, pick_compute

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
SETTINGS = {"image_size": 32, "batch_size": 16, "local_epochs": 3, "learning_rate": 0.01}
# Each case: how it differs from SETTINGS, and the relative difference that counts as the same.
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "resnet18": ({"model": "resnet18", "precision": "fp32"}, 2e-3),
    "resnet18, bf16": ({"model": "resnet18", "precision": "bf16"}, 0.05),
    "resnet18, crops and flips": ({"model": "resnet18", "precision": "fp32", "augmentation": "crop-flip"}, 2e-3),
    "resnet18, no momentum": ({"model": "resnet18", "precision": "fp32", "momentum": 0.0}, 2e-3),
    "resnet18, proximal": ({"model": "resnet18", "precision": "fp32", "proximal_mu": 1.0}, 2e-3),
    "resnet50": ({"model": "resnet50", "precision": "fp32", "local_epochs": 1}, 2e-3),
}


def _losses(changes: dict[str, Any], device: str = "cpu") -> list[float]:
    """Each epoch's loss on 64 images whose colour tells their class, with a quarter of the labels wrong."""
    settings = {**SETTINGS, **changes}
    proximal_mu = settings.pop("proximal_mu", 0.0)
    config = RunConfig(**settings)
    generator = derived_generator(1, "golden images")
    truth = torch.arange(64) % 5
    side = stored_size(config.augmentation, config.image_size)
    colours = torch.randint(60, 196, (5, 1, 1, 3), generator=generator)
    images = (colours[truth] + torch.randint(-60, 60, (64, side, side, 3), generator=generator)).to(torch.uint8)
    labels = torch.where(torch.rand(64, generator=generator) < 0.25, (truth + 1) % 5, truth)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[config.precision]
    report = train_locally(
        build_model(config.model, 5, seed=1).to(device),
        images.to(device),
        labels,
        CE(),
        config,
        Compute(torch.device(device), dtype),
        derived_generator(1, "golden visit"),
        proximal_mu=proximal_mu,
    )
    return report.epoch_losses


@pytest.mark.parametrize("case", CASES)
def test_losses_are_what_they_were(case: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    changes, tolerance = CASES[case]
    assert _losses(changes) == pytest.approx(golden[case], rel=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_gives_the_same_losses(case: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    changes, tolerance = CASES[case]
    pick_compute("fp32")  # no TF32, which would round what golden losses did not
    assert _losses(changes, "cuda") == pytest.approx(golden[case], rel=tolerance)


def test_the_cases_differ_by_more_than_their_tolerance() -> None:
    """Otherwise a setting that stopped acting would go unnoticed."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden.keys() == CASES.keys()
    base = golden["resnet18"]
    for case, losses in golden.items():
        if case not in ("resnet18", "resnet18, bf16"):
            assert losses != pytest.approx(base[: len(losses)], rel=10 * CASES[case][1]), case
    assert base[-1] < 0.8 * base[0]  # it learns


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {case: [round(loss, 6) for loss in _losses(changes)] for case, (changes, _) in CASES.items()}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
