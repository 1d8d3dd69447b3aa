"""What differential privacy costs when all weights train, when adapters do, and when a head does.

    python -m benchmarks.privacy [--model cnn] [--trains head --trains lora] [--noise 0 --noise 0.1] [--seed 1]

Every run starts from the same pretrained network and meets the same noise multipliers and clipping norm, so that only
the number of values that train differs, and with it the norm of the noise: its deviation times the square root of that
number. Whole runs of the real ServerApp and ClientApp take place in this process, without Ray, on one thread.

ImageNet's weights need not be downloaded. The network is pretrained here, centrally and with right labels, on another
drawn sample: other images of the same 14 classes, which is closer than ImageNet is. It stays in
~/.cache/clothing1m-fl/benchmarks/privacy, as do both samples. The runs' own sample has the usual noisy labels.

Rounds have few clients, so that the multipliers are far below those that protect anyone. A real run has thousands a
round: the noise on their mean, z C / m, is that of this table if m is larger by as much as z is.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.report import report
from data.errors import DataError
from data.sample import SampleSize, draw_sample
from data.user_cache import below_home

PLACE = "~/.cache/clothing1m-fl/benchmarks/privacy"
ELSEWHERE = SampleSize(train=14, clean_train=2000, val=1, test=350, image_size=32, seed=2)
SAMPLE = SampleSize(train=2000, clean_train=14, val=1, test=700, image_size=32, seed=1)
CLASSES = 14
CLIENTS = 50
CLIPPING_NORM = 1.0
NETWORK: Mapping[str, Any] = {"image_size": 32, "stem": "imagenet", "precision": "fp32", "val_split": "none"}
PRETRAINING: Mapping[str, Any] = {
    **NETWORK, "train_split": "clean", "num_server_rounds": 6, "fraction_train": 1.0, "local_epochs": 2,
    "batch_size": 32, "learning_rate": 0.05, "lr_schedule": "cosine", "seed": 2,
}  # fmt: skip
ROUNDS = 15
PRIVATE: Mapping[str, Any] = {
    **NETWORK, "num_server_rounds": ROUNDS, "evaluate_every": ROUNDS, "fraction_train": 0.2, "local_epochs": 1,
    "batch_size": 8, "privacy": "server-fixed",
}  # fmt: skip
# Of two learning rates each the one with the higher test accuracy without noise, with seed 1: of 0.03 and 0.1, for the
# head of 0.1 and 0.3. With freeze-a none was tried: it has that of lora.
TRAINS: Mapping[str, Mapping[str, Any]] = {
    "all": {"learning_rate": 0.1},
    "lora": {"trainable": "lora", "learning_rate": 0.1},
    "lora freeze-a": {"trainable": "lora", "trainable_args": "freeze-a=true", "learning_rate": 0.1},
    "head": {"trainable": "head", "learning_rate": 0.3},
}
PACKAGES = ("flwr", "torch", "torchvision", "numpy")


@dataclass(frozen=True)
class Outcome:
    """What one run ended with.

    Attributes:
        accuracy: On clean test after the last round, in percent.
        deviation: Of the noise on each trained value, the same in every round.
    """

    accuracy: float
    deviation: float


def drawn(folder: Path, name: str, size: SampleSize) -> Path:
    """The sample below `folder`, drawn unless it is there."""
    if not (out := folder / name).is_dir():
        draw_sample(out, **size.__dict__)
    return out


def pretrained(folder: Path, model: str) -> Path:
    """The file of a pretrained network below `folder`, trained unless it is there."""
    from benchmarks.tools.in_process import run_in_process

    kept = folder / f"{model}.safetensors"
    if not kept.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            data = drawn(folder, "elsewhere", ELSEWHERE)
            run = run_in_process(Path(temporary), 1, data_dir=str(data), model=model, **PRETRAINING)
            (run / "model.safetensors").replace(kept)
    return kept


def outcome(out: Path, sample: Path, weights: Path, trains: str, noise: float, seed: int) -> Outcome:
    """One private run, whose folder is below `out`, of the network that `pretrained` made."""
    from benchmarks.tools.in_process import run_in_process

    args = f"noise-multiplier={noise} clipping-norm={CLIPPING_NORM}"
    settings = {**PRIVATE, **TRAINS[trains], "model": weights.stem, "pretrained": str(weights), "seed": seed}
    run = run_in_process(out, CLIENTS, data_dir=str(sample), privacy_args=args, run_name="run", **settings)
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return Outcome(100 * last["test-accuracy"], last["noise-stddev"])


def values_that_train(model: str, trains: str) -> int:
    """How many numbers get noise."""
    from learning.network import NetworkSpec, build

    kind = TRAINS[trains]
    spec = NetworkSpec(
        model, CLASSES, image_size=int(NETWORK["image_size"]), trainable=kind.get("trainable", "all"),
        trainable_args=kind.get("trainable_args", ""),
    )  # fmt: skip
    return sum(value.numel() for value in build(spec).parameters() if value.requires_grad)


def row(trains: str, noise: float, values: int, found: list[Outcome]) -> tuple[str | float | int, ...]:
    """One row of the table: a kind of training at a noise multiplier, over seeds."""
    accuracies = [one.accuracy for one in found]
    return (
        trains,
        values,
        noise,
        statistics.fmean(one.deviation for one in found) * values**0.5,
        statistics.fmean(accuracies),
        " ".join(f"{accuracy:.1f}" for accuracy in accuracies),
    )


def main(
    model: Annotated[str, typer.Option(help="The network, such as cnn or resnet18.")] = "cnn",
    trains: Annotated[list[str] | None, typer.Option(help="What trains; may be repeated; all by default.")] = None,
    noise: Annotated[list[float] | None, typer.Option(help="Noise multiplier; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
) -> None:
    kinds, noises, seeds = trains or list(TRAINS), noise or [0.0, 0.1, 0.3], seed or [1, 2, 3]
    if unknown := sorted(set(kinds) - TRAINS.keys()):
        raise DataError(f"--trains is {unknown[0]!r}; it must be one of {', '.join(TRAINS)}.")
    import torch

    torch.set_num_threads(1)
    folder = below_home(PLACE)
    folder.mkdir(parents=True, exist_ok=True)
    weights, sample = pretrained(folder, model), drawn(folder, "sample", SAMPLE)
    found: dict[tuple[str, float], list[Outcome]] = {(kind, z): [] for kind in kinds for z in noises}
    for one in seeds:
        for (kind, z), outcomes in found.items():
            with tempfile.TemporaryDirectory() as temporary:
                outcomes.append(outcome(Path(temporary), sample, weights, kind, z, one))
            print(f"seed {one}, {kind}, noise {z:g}: {outcomes[-1].accuracy:.1f} %", file=sys.stderr, flush=True)
    columns = ("trains", "values", "noise multiplier", "norm of the noise", "accuracy, %", "of each seed, %")
    rows = [row(kind, z, values_that_train(model, kind), outcomes) for (kind, z), outcomes in found.items()]
    report(f"privacy: {model}, clipping norm {CLIPPING_NORM:g}, {ROUNDS} rounds", columns, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
