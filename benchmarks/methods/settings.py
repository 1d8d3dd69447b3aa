"""What `benchmarks.methods` compares: two settings, and the arguments of each method in them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.methods.data import SIZE
from config.run_config import Value

COMMON: dict[str, Value] = {
    "model": "resnet18", "image-size": 32, "local-epochs": 5, "batch-size": 32, "learning-rate": 0.05,
    "num-server-rounds": 10, "fraction-train": 0.2, "val-split": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Who holds which images, and how their labels are wrong.

    Attributes:
        about: For the table's title.
        clients: Simulated nodes.
        released: Whether clients hold the sample's own noisy labels; the true ones otherwise.
        config: What holds for all rows.
        noise: What makes the labels wrong, and is left out for the ceiling.
    """

    about: str
    clients: int
    released: bool
    config: Mapping[str, Value]
    noise: Mapping[str, Value]


SETTINGS = {
    "iid": Setting(
        "10 clients, 2 a round, IID; the sample's own noise, 39.5 % wrong by Clothing1M's confusion",
        clients=10,
        released=True,
        config={},
        noise={},
    ),
    "mixed": Setting(
        "20 clients, 4 a round, Bernoulli-Dirichlet (p=0.9, alpha=10); 8 with 50 to 80 % symmetric noise, 12 clean",
        clients=20,
        released=False,
        config={"partition": "bernoulli-dirichlet", "partition-args": "p=0.9 alpha=10.0 min-size=32"},
        noise={"label-noise": "symmetric", "label-noise-args": "noisy-share=0.4 min-rate=0.5 max-rate=0.8"},
    ),
}


@dataclass(frozen=True)
class MethodSpec:
    """One row of the table.

    Attributes:
        method: The run's.
        args: Its `method-args`.
        overrides: Other keys that the method needs, such as `strategy`.
        by_setting: Keys of one setting alone, which win.
        clean: Whether it trains on true labels.
    """

    method: str
    args: str = ""
    overrides: Mapping[str, Value] = field(default_factory=dict)
    by_setting: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    clean: bool = False


# With IID labels no client is noisier than another, so there is nothing to detect, and both halves of FedNoRo and
# FedELC are shown as they are at noisy clients. Two rounds of warm-up, a sixth, would be too few for a fresh network to
# know anything; batches of 32 take half of the label rate that batches of 64 do. Forget rates are the share of wrong
# labels: 39.5 % and 0.4 * 65 %.
WARM = "warm-up-rounds=4"
ALL_NOISY = "clients='all-noisy'"
HALF_RATE = "label-rate=500.0"
MATRIX = "MATRIX"  # stands for the path of the matrix of symmetric noise, 26 % on average
METHODS = {
    "ceiling": MethodSpec("ce", clean=True),
    "ce": MethodSpec("ce"),
    "sce": MethodSpec("sce", "alpha=0.1 beta=1.0"),
    # Its gradient is cross-entropy's times p_y^q, so that a fresh network hardly moves at the others' learning rate.
    "gce": MethodSpec("gce", "q=0.7", {"learning-rate": 0.1}),
    # The sample's some 130 images with both labels are too few to count 196 entries of a matrix.
    "forward": MethodSpec(
        "forward", "transition='clothing1m'", by_setting={"mixed": {"method-args": f"transition='{MATRIX}'"}}
    ),
    "elr": MethodSpec("elr", "beta=0.7 strength=3.0"),
    "fedlsr": MethodSpec("fedlsr", "gamma=0.4 entropy=0.3"),
    "co-teaching": MethodSpec(
        "co-teaching", "forget-rate=0.38", by_setting={"mixed": {"method-args": "forget-rate=0.26"}}
    ),
    "fednoro": MethodSpec("fednoro", WARM, by_setting={"iid": {"method-args": f"{WARM} {ALL_NOISY}"}}),
    "fedelc": MethodSpec(
        "fedelc", f"{WARM} {HALF_RATE}", by_setting={"iid": {"method-args": f"{WARM} {HALF_RATE} {ALL_NOISY}"}}
    ),
}


def config_of(setting: str, method: str, seed: int) -> dict[str, Value]:
    """All that is set for a run, but where its data are and where it is written."""
    place, spec = SETTINGS[setting], METHODS[method]
    return {
        **COMMON, **place.config, **({} if spec.clean else place.noise),
        "method": spec.method, "method-args": spec.args, **spec.overrides, **spec.by_setting.get(setting, {}),
        "seed": seed,
    }  # fmt: skip


def mark_of(setting: str, method: str) -> str:
    """8 hex digits over everything that decides a result, but the seed."""
    place, spec = SETTINGS[setting], METHODS[method]
    decisive = [config_of(setting, method, 0), place.clients, place.released and not spec.clean, asdict(SIZE)]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


def write_matrix(folder: Path) -> Path:
    """The transition matrix of the setting with symmetric noise, averaged over its clients."""
    wrong, classes = 0.4 * 0.65, 14
    matrix = np.full((classes, classes), wrong / (classes - 1))
    np.fill_diagonal(matrix, 1 - wrong)
    path = folder / "symmetric-26.txt"
    if not path.exists():
        np.savetxt(path, matrix)
    return path
