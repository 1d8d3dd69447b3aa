"""Every method with what else may be asked of a network and of its steps, in whole runs in one process.

Each of four kinds of run has several settings at once, and every method goes through three of them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from config.run_config import ConfigError, RunConfig
from data.sample import draw_sample
from learning.network import NetworkSpec, build
from learning.shared_state import plain_state, shared_names
from methods import METHODS, build_method
from tests.fakes import rounds_of, run_in_process
from tests.server_app.test_every_method import WARM_UPS

CLASSES = 14
COMMON: dict[str, Any] = {
    "model": "cnn", "image_size": 16, "num_server_rounds": 2, "val_split": "none", "clients": 2, "fraction_train": 1.0,
    "seed": 3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "adapters without BatchNorm": {
        "model": "timm:test_vit", "image_size": 32, "trainable": "lora", "trainable_args": "rank=2",
        "optimizer": "adamw", "learning_rate": 0.001, "lr_schedule": "cosine", "gradient_clipping": 1.0,
    },
    "head": {"trainable": "head", "batchnorm": "frozen", "optimizer_args": "nesterov=true", "lr_schedule": "step"},
    "own BatchNorm and dropout": {
        "model": "mobilenet_v3_small", "image_size": 32, "batchnorm": "local", "lr_schedule": "linear",
        "payload": "bf16",
    },
    "frozen statistics": {"batchnorm": "frozen", "optimizer": "adamw", "learning_rate": 0.001, "lr_warm_up": 1},
}  # fmt: skip
# One of each sort: plain, further heads, a network of the client's own, relabelling, two networks, two stages.
SORTS = ("ce", "xiao", "elr", "joint-optimization", "co-teaching", "dualoptim")
RUNS = [
    (kind, method)
    for kind in KINDS
    for method in METHODS
    if kind not in ("own BatchNorm and dropout", "frozen statistics")
    or (method in SORTS) == (kind == "own BatchNorm and dropout")
]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Very few images: what counts is that everything is reached."""
    out = tmp_path_factory.mktemp("data") / "release"
    draw_sample(out, train=36, clean_train=8, val=4, test=8, image_size=32, seed=5)
    return out


@pytest.mark.parametrize(("kind", "method"), RUNS)
def test_every_method_with_everything_else(tmp_path: Path, release: Path, kind: str, method: str) -> None:
    settings = {**COMMON, **KINDS[kind], "method": method, "method_args": WARM_UPS.get(method, "")}
    if kind == "head" and method == "feddecorr":
        with pytest.raises(ConfigError, match="decorrelates features, but 'trainable' is 'head', which leaves them"):
            run_in_process(tmp_path, data_dir=str(release), **settings)
        return
    run_dir = run_in_process(tmp_path, data_dir=str(release), **settings)
    lines = rounds_of(run_dir)
    assert [line["failed-partitions"] for line in lines] == [[], []]
    assert all(np.isfinite(line["test-loss"]) for line in lines)
    config = RunConfig(**{key: value for key, value in settings.items() if key != "clients"})
    model = build(NetworkSpec.of(config, build_method(config), CLASSES))
    trained, before = shared_names(model), plain_state(model)
    whole = safetensors.torch.load_file(run_dir / "model.safetensors")
    assert whole.keys() == before.keys()
    moved = {name for name, value in whole.items() if not torch.equal(value, before[name])}
    assert all(value.isfinite().all() for value in whole.values())
    # Under its plain name, a weight with an adapter is not among what travels.
    assert moved <= trained | {name for name in before if name not in model.state_dict()}
    assert len(moved) > len(before) / 2 or kind in ("head", "adapters without BatchNorm")
    assert moved
