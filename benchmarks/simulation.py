"""What a federated round through `flwr run` takes, compared with a bare PyTorch loop over the same steps.

    python -m benchmarks.simulation [--images 256 --images 768] [--rounds 4] [--repeats 3] [--model resnet50]

All clients train in every round, as many at once as there are cores, each on one. A round lasts from one evaluated
global model to the next: messages, training, checks of replies, aggregation, evaluation on a few images, checkpoint,
metrics. The bare loop (`benchmarks.tools.bare_loop`) trains as many clients for as many steps of the same size in the
same precision, and does nothing else: in one process on all cores, and in as many processes as cores, the stricter
comparison. Contenders take turns. Medians of all rounds, without the first of a run, which also decodes, and of all
repeats.

Start-up is measured separately: from the command until nodes are asked who they are (Flower bundles the app and starts
the simulation; imports), until the first one has answered (Ray and its actors start, and import), until all have; and
how much longer the first round takes than a typical one (images are decoded, weights are allocated, the first batch is
slow).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.scaling import start_up
from benchmarks.tools.bare_loop import Load, bare_rounds
from benchmarks.tools.command import run_command
from benchmarks.tools.processes import arrivals, deployment, pairs
from benchmarks.tools.report import report
from data.sample import draw_sample
from task import pick_compute

ROOT = Path(__file__).parents[1]
TEST_IMAGES = 28
CLASSES = 14
RUN_SECONDS = 3600
PACKAGES = ("flwr", "ray", "torch", "torchvision", "numpy")
COLUMNS = (
    "images each", "ours, s", "of it evaluation, s", "bare in one process, s", "bare in several, s", "ours / bare",
    "without evaluation / bare", "ours, least to most", "bare, least to most",
)  # fmt: skip
START_COLUMNS = (
    "images each", "command to roll call, s", "first answer, s", "other answers, s", "first round more by, s", "all, s",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One `flwr run`, in seconds.

    Attributes:
        start: From the command to the roll call.
        first_answer: From the start of the roll call to the first answer.
        other_answers: The rest of the roll call.
        rounds: From one evaluated model to the next; the first one from the roll call's end.
        evaluations: Of each round.
    """

    start: float
    first_answer: float
    other_answers: float
    rounds: list[float]
    evaluations: list[float]


def measure(load: Load, clients: int, rounds: int, release: Path, folder: Path) -> Run:
    """One run with all that it leaves below `folder`, which does not exist yet."""
    folder.mkdir()
    config: dict[str, Any] = {
        "data-dir": release, "output-dir": folder, "run-name": "run", "cache-dir": folder / "cache",
        "num-server-rounds": rounds, "fraction-train": 1.0, "val-split": "none", "model": load.model,
        "image-size": load.image_size, "stem": "imagenet", "batch-size": load.batch_size, "local-epochs": 1,
        "precision": "bf16" if load.bf16 else "fp32", "learning-rate": load.learning_rate, "momentum": load.momentum,
        "weight-decay": load.weight_decay,
    }  # fmt: skip
    federation = f"num-supernodes={clients} client-resources-num-cpus=1"
    with (
        deployment(folder / "home", [], {}) as started,
        arrivals(folder / "run" / "metrics.jsonl") as lines,
    ):
        begun = time.time()
        log = started.run(ROOT, "--federation-config", federation, "-c", pairs(config), timeout=RUN_SECONDS)
    entries = [json.loads(line) for _, line in lines]
    for entry in entries:
        if entry["images-seen"] != clients * load.images or entry["failed-partitions"]:
            raise RuntimeError(f"round {entry['round']} trained on {entry['images-seen']} images:\n{log}")
    return Run(
        *start_up(log, folder / "run", begun),
        rounds=[entry["seconds"] for entry in entries],
        evaluations=[entry["evaluation-seconds"] for entry in entries],
    )


def row(images: int, runs: list[Run], alone: list[float], several: list[float]) -> list[Any]:
    """One row of the first table."""
    ours = [seconds for run in runs for seconds in run.rounds[1:]]
    evaluation = statistics.median([seconds for run in runs for seconds in run.evaluations[1:]])
    median, bare = statistics.median(ours), min(statistics.median(alone), statistics.median(several))
    return [
        images, median, evaluation, statistics.median(alone), statistics.median(several), median / bare,
        (median - evaluation) / bare, span(ours), span(min(alone, several, key=statistics.median)),
    ]  # fmt: skip


def start_row(images: int, runs: list[Run]) -> list[Any]:
    """One row of the second table."""
    typical = statistics.median([seconds for run in runs for seconds in run.rounds[1:]])
    parts = [
        statistics.median(run.start for run in runs),
        statistics.median(run.first_answer for run in runs),
        statistics.median(run.other_answers for run in runs),
        statistics.median(run.rounds[0] - typical for run in runs),
    ]
    return [images, *parts, sum(parts)]


def span(seconds: list[float]) -> str:
    return f"{min(seconds):.1f} to {max(seconds):.1f}"


def main(
    images: Annotated[list[int] | None, typer.Option(help="Images of each client; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of each run; the first is reported separately.", min=2)] = 4,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.", min=1)] = 3,
    clients: Annotated[int, typer.Option(help="Clients in a round; a multiple of the cores.")] = 4,
    model: Annotated[str, typer.Option(help="resnet18, resnet34 or resnet50.")] = "resnet50",
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 112,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 32,
) -> None:
    cores = len(os.sched_getaffinity(0))
    bf16 = "bfloat16" in str(pick_compute("auto"))
    rows, starts = [], []
    for count in images or [256, 768]:
        load = Load(model, CLASSES, count, image_size, batch_size, bf16)
        runs: list[Run] = []
        bare: dict[int, list[float]] = {1: [], cores: []}
        with tempfile.TemporaryDirectory() as temporary:
            release = Path(temporary) / "release"
            draw_sample(
                release, train=clients * count, clean_train=1, val=1, test=TEST_IMAGES, image_size=image_size, seed=1
            )
            for repeat in range(repeats):
                runs.append(measure(load, clients, rounds, release, Path(temporary) / f"run-{repeat}"))
                for processes, seconds in bare.items():
                    seconds += bare_rounds(load, clients, processes, rounds - 1)
                print(f"{count} images, repeat {repeat + 1} of {repeats}: {runs[-1]}, {bare}", file=sys.stderr)
        rows.append(row(count, runs, bare[1], bare[cores]))
        starts.append(start_row(count, runs))
    title = f"{model}, {image_size} pixels, {clients} clients a round, batches of {batch_size}"
    report(f"rounds of a simulation: {title}", COLUMNS, rows, PACKAGES)
    report(f"start-up of a simulation: {title}", START_COLUMNS, starts, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
