"""What `benchmarks.methods` compares: four settings, and the arguments of each method in them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.methods.data import identity_of
from config.run_config import Value

GARMENTS: dict[str, Value] = {
    "model": "resnet18", "image-size": 32, "precision": "auto", "local-epochs": 5, "batch-size": 32,
    "learning-rate": 0.05, "num-server-rounds": 10, "fraction-train": 0.2, "val-split": "none",
}  # fmt: skip
# Chosen by trials of ce and the ceiling with seed 1, for symmetric noise: ce is at its best after 4 rounds and loses 11
# points by the last five, where the ceiling is at 99 %. Without bf16, every machine learns the same.
DIGITS: dict[str, Value] = {
    "model": "cnn", "image-size": 16, "precision": "fp32", "local-epochs": 5, "batch-size": 32,
    "learning-rate": 0.1, "num-server-rounds": 20, "fraction-train": 0.3, "val-split": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Who holds which images, and how their labels are wrong.

    Attributes:
        about: For the table's title.
        images: How many there are, for the table's title.
        release: What clients hold, see `benchmarks.methods.data.release_of`.
        clients: Simulated nodes.
        config: What holds for all rows.
        noise: What makes the labels wrong, and is left out for the ceiling; empty where the release does.
        wrong: Share of the wrong labels.
        transition: P(given label | true class): ``clothing1m``, or a kind of noise of which a file is written.
    """

    about: str
    images: str
    release: str
    clients: int
    config: Mapping[str, Value]
    noise: Mapping[str, Value]
    wrong: float
    transition: str


def _digits(about: str, noise: str) -> Setting:
    return Setting(
        f"scanned digits, 10 clients, 3 a round, IID; 40 % of the labels {about}",
        "1,398 images, 359 for test",
        release="digits",
        clients=10,
        config=DIGITS,
        noise={"label-noise": noise, "label-noise-args": "rate=0.4"},
        wrong=0.4,
        transition=noise,
    )


SETTINGS = {
    "iid": Setting(
        "garments, 10 clients, 2 a round, IID; the sample's own noise, 39.5 % wrong by Clothing1M's confusion",
        "2,000 images, 1,400 for test",
        release="sample",
        clients=10,
        config=GARMENTS,
        noise={},
        wrong=0.395,
        transition="clothing1m",
    ),
    "mixed": Setting(
        "garments, 20 clients, 4 a round, Bernoulli-Dirichlet (p=0.9, alpha=10); 8 with 50 to 80 % symmetric noise,"
        " 12 clean",
        "2,000 images, 1,400 for test",
        release="truth",
        clients=20,
        config={**GARMENTS, "partition": "bernoulli-dirichlet", "partition-args": "p=0.9 alpha=10.0 min-size=32"},
        noise={"label-noise": "symmetric", "label-noise-args": "noisy-share=0.4 min-rate=0.5 max-rate=0.8"},
        wrong=0.26,
        transition="symmetric",
    ),
    "digits-symmetric": _digits("replaced at random by others", "symmetric"),
    "digits-pairflip": _digits("turned into the digit before", "pairflip"),
}


@dataclass(frozen=True)
class MethodSpec:
    """One row of the table.

    Attributes:
        method: The run's.
        args: Its `method-args`, in which `WRONG` and `MATRIX` stand for what the setting has.
        overrides: Other keys that the method needs, such as `strategy`.
        by_setting: Keys of one setting alone, which win.
        clean: Whether it trains on true labels.
        settings: Where it can be run; empty: everywhere.
    """

    method: str
    args: str = ""
    overrides: Mapping[str, Value] = field(default_factory=dict)
    by_setting: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    clean: bool = False
    settings: tuple[str, ...] = ()


WRONG = "{wrong}"  # the setting's share of wrong labels: forget rates
MATRIX = "{matrix}"  # its transition matrix, by name or in a file
# Two rounds, a fifth of ten, would be too few for a fresh network to know anything that a second stage could build on.
WARM = "warm-up-rounds=4"
# Clients are alike in all settings but `mixed`, so there is nothing to detect, and second stages are shown as they are
# at noisy clients.
ALL_NOISY = "clients='all-noisy'"
SYMMETRIC = "alpha=4.0 lambda-u=25.0 confidence-penalty=0.0"
HALF_RATE = "label-rate=500.0"  # batches of 32 take half of the label rate that batches of 64 do


def _two_stages(method: str, *args: str) -> MethodSpec:
    """A method that treats noisy clients in another way than clean ones, after rounds that are alike for all."""
    detecting = " ".join((WARM, *args))
    return MethodSpec(method, f"{detecting} {ALL_NOISY}", by_setting={"mixed": {"method-args": detecting}})


def _history(method: str, *args: str) -> MethodSpec:
    """A method that looks back some epochs: one visit of the two with garments, two of the six with digits."""
    short, long = (" ".join((WARM, f"history={epochs}", *args)) for epochs in (5, 10))
    digits = {"method-args": long}
    return MethodSpec(method, short, by_setting={"digits-symmetric": digits, "digits-pairflip": digits})


METHODS = {
    "ceiling": MethodSpec("ce", clean=True),
    "ce": MethodSpec("ce"),
    "sce": MethodSpec("sce", "alpha=0.1 beta=1.0"),
    # Its gradient is cross-entropy's times p_y^q, so that a fresh network hardly moves at the garments' learning rate.
    "gce": MethodSpec("gce", "q=0.7", by_setting={"iid": {"learning-rate": 0.1}, "mixed": {"learning-rate": 0.1}}),
    # The images with both labels are too few to count a matrix: some 130 of the sample, none of the digits.
    "forward": MethodSpec("forward", f"transition='{MATRIX}'"),
    # Its server learns how the released labels are wrong, from a hundred clean images that no other row has.
    "xiao": MethodSpec("xiao", settings=("iid",)),
    "feddecorr": MethodSpec("feddecorr"),
    "elr": MethodSpec("elr", "beta=0.7 strength=3.0"),
    "selfie": _history("selfie", f"noise-rate={WRONG}"),
    "joint-optimization": _history("joint-optimization"),
    "fedlsr": MethodSpec("fedlsr", "gamma=0.4 entropy=0.3"),
    "fedlsr-reference": MethodSpec("fedlsr", "gamma=0.4 entropy=0.3 form='reference'"),
    "co-teaching": MethodSpec("co-teaching", f"forget-rate={WRONG}"),
    "co-teaching-plus": MethodSpec("co-teaching-plus", f"forget-rate={WRONG} start-rounds=4"),
    # The authors' own for symmetric and for asymmetric noise; their defaults are those for Clothing1M.
    "dividemix": MethodSpec(
        "dividemix",
        WARM,
        by_setting={
            **{name: {"method-args": f"{WARM} {SYMMETRIC}"} for name in ("mixed", "digits-symmetric")},
            "digits-pairflip": {"method-args": f"{WARM} alpha=4.0"},
        },
    ),
    "fednoro": _two_stages("fednoro"),
    "fedelc": _two_stages("fedelc", HALF_RATE),
    "maskedoptim": _two_stages("maskedoptim", HALF_RATE),
    "dualoptim": _two_stages("dualoptim", HALF_RATE),
}


def rows_of(setting: str) -> list[str]:
    """The rows that can be run in a setting, in the table's order."""
    return [name for name, spec in METHODS.items() if not spec.settings or setting in spec.settings]


def release_name(setting: str, method: str) -> str:
    """Of what the row's clients hold, see `benchmarks.methods.data.release_of`."""
    name = SETTINGS[setting].release
    return "truth" if name == "sample" and METHODS[method].clean else name


def config_of(setting: str, method: str, seed: int) -> dict[str, Value]:
    """All that is set for a run, but where its data and `MATRIX` are and where it is written."""
    place, spec = SETTINGS[setting], METHODS[method]
    config = {
        **place.config, **({} if spec.clean else place.noise),
        "method": spec.method, "method-args": spec.args, **spec.overrides, **spec.by_setting.get(setting, {}),
        "seed": seed,
    }  # fmt: skip
    config["method-args"] = str(config["method-args"]).replace(WRONG, f"{place.wrong:g}")
    return config


def mark_of(setting: str, method: str) -> str:
    """8 hex digits over everything that decides a result, but the seed."""
    place = SETTINGS[setting]
    images = identity_of(release_name(setting, method))
    decisive = [config_of(setting, method, 0), place.clients, place.wrong, place.transition, images]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


def transition_of(setting: str) -> np.ndarray:
    """(C, C) float64 P(given label | true class), averaged over the clients of a setting with synthetic noise."""
    place = SETTINGS[setting]
    classes = 10 if place.release == "digits" else 14
    keep = np.eye(classes)
    others = (1 - keep) / (classes - 1) if place.transition == "symmetric" else np.roll(keep, -1, axis=1)
    return (1 - place.wrong) * keep + place.wrong * others
