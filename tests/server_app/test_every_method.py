"""Every method in whole runs in one process, with clients, batches and settings as awkward as they get."""

import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from methods import METHODS
from methods.two_stages import TwoStages
from tests.fakes import rounds_of, run_in_process

TINY: dict[str, Any] = {"model": "cnn", "image_size": 16, "num_server_rounds": 3, "val_split": "none"}
# Their defaults would hardly reach, in three rounds, what comes after the warm-up.
WARM_UPS = {
    "selfie": "warm-up-rounds=0 history=2",
    "joint-optimization": "warm-up-rounds=0",
    "co-teaching-plus": "start-rounds=0 warm-up-rounds=1",
    "fedclean": "alone-epochs=2 first-stage-rounds=1 second-stage-rounds=1",
    "robustfl": "pseudo-start-rounds=1 warm-up-rounds=2",
    **dict.fromkeys(
        ("dividemix", "fednoro", "fedelc", "maskedoptim", "dualoptim", "feddiv", "fedrn"), "warm-up-rounds=1"
    ),
}
TWO_STAGES = [name for name, cls in METHODS.items() if issubclass(cls, TwoStages)]
LEAVE_OUT = {"feddiv", "fedrn"}  # images, in some visits


def _run(out: Path, sample: Path, method: str, **changes: Any) -> Path:
    args = WARM_UPS.get(method, "")
    return run_in_process(out, data_dir=str(sample), method=method, **{**TINY, "method_args": args, **changes})


@pytest.mark.parametrize("method", list(METHODS))
def test_one_client_whose_partition_is_smaller_than_a_batch(tmp_path: Path, tiny_sample: Path, method: str) -> None:
    run_dir = _run(tmp_path, tiny_sample, method, clients=1, fraction_train=1.0, batch_size=500, drop_last=False)
    lines = rounds_of(run_dir)
    passes, alone = METHODS[method].passes, METHODS[method]().passes_alone
    everything = passes == 1 and not alone and method not in LEAVE_OUT
    assert all(120 * everything <= line["images-seen"] <= 120 * (passes + alone) for line in lines)
    assert all(math.isfinite(line["test-loss"]) for line in lines)


@pytest.mark.parametrize("method", list(METHODS))
def test_classes_that_clients_lack_half_precision_and_crops(tmp_path: Path, tiny_sample: Path, method: str) -> None:
    """Two shards per client: most classes are missing there, and the last batch is small."""
    run_dir = _run(
        tmp_path, tiny_sample, method, clients=6, partition="shards", partition_args="shards-per-client=2",
        precision="bf16", augmentation="crop-flip", drop_last=False, batch_size=7, fraction_train=1.0,
    )  # fmt: skip
    lines = rounds_of(run_dir)
    assert all(line["failed-partitions"] == [] for line in lines)
    assert all(math.isfinite(line["test-loss"]) for line in lines)


@pytest.mark.parametrize("method", TWO_STAGES)
@pytest.mark.parametrize("clients", ["all-noisy", "all-clean"])
def test_all_noisy_or_all_clean(tmp_path: Path, tiny_sample: Path, method: str, clients: str) -> None:
    args = f"warm-up-rounds=1 clients='{clients}'"
    run_dir = _run(tmp_path, tiny_sample, method, method_args=args, fraction_train=1.0)
    assert all(line["failed-partitions"] == [] for line in rounds_of(run_dir))


@pytest.mark.parametrize("strategy", ["fedadam", "fedmedian", "fedprox"])
def test_two_networks_with_other_strategies_and_half_precision_payloads(
    tmp_path: Path, tiny_sample: Path, strategy: str
) -> None:
    args = "proximal-mu=0.1" if strategy == "fedprox" else ""
    run_dir = _run(
        tmp_path, tiny_sample, "co-teaching", strategy=strategy, strategy_args=args, payload="bf16",
        fraction_evaluate=0.5,
    )  # fmt: skip
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    assert {name.split(".")[1] for name in weights} == {"0", "1"}
    assert "eval-accuracy" in rounds_of(run_dir)[-1]


def test_both_networks_start_from_pretrained_weights_but_with_different_heads(
    tmp_path: Path, tiny_sample: Path
) -> None:
    plain = _run(tmp_path / "plain", tiny_sample, "ce", num_server_rounds=1)
    run_dir = _run(
        tmp_path / "two", tiny_sample, "co-teaching", pretrained=str(plain / "model.safetensors"), num_server_rounds=1,
        learning_rate=1e-12,
    )  # fmt: skip
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    body, head = ([weights[f"networks.{number}.{name}"] for number in (0, 1)] for name in ("conv1.weight", "fc.weight"))
    assert abs(body[0] - body[1]).max() < 1e-6
    assert abs(head[0] - head[1]).max() > 1e-3
