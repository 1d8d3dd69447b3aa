"""What a round of a real deployment costs apart from training: this app compared with Flower's own loop.

    python -m benchmarks.deployment [--contender stock --contender ours] [--model resnet50] [--rounds 5] [--repeats 3]
    python -m benchmarks.deployment --contender ours --contender "ours, head"
    python -m benchmarks.deployment --model vit_b_16 --image-size 224 --images 4 --batch-size 4 --test-images 4
        --rounds 3 --repeats 1 --contender ours --contender "ours, lora"

A SuperLink and two SuperNodes on loopback, restarted for each run; contenders take turns. Both read the same drawn
images from the same files, take the same number of fp32 steps of the same size from the same architecture, every client
in every round, and test the global model on the same images after each. Each node's processes compute on an equal share
of the cores.

- stock: `benchmarks/tools/plain_app`, modelled on Flower's PyTorch quickstart: `FedAvg.start()`, a DataLoader with
  Pillow.
- ours: this app with its defaults: roll call, checks of every reply, checkpoints, metrics. With `head` and `lora` the
  rest of the network is what the seed draws, in nodes and server alike: what travels and how long that takes does not
  depend on how good it is.

A round lasts from one tested global model to the next, so checkpoints count. Its rest is the time not explained by the
longest training of its clients: starting processes, imports, transport, waiting, decoding, aggregation and evaluation.
Medians over all rounds but the first of each run, which also decodes, and waits for nodes. Bytes are what the app
counts (docs/metrics.md#bytes), divided by the visits of a round; nothing counts stock's.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.dealt import draw_dealt
from benchmarks.tools.processes import arrivals, deployment, pairs
from benchmarks.tools.report import Stopwatch, report

ROOT = Path(__file__).parents[2]
STOCK = ROOT / "benchmarks" / "tools" / "plain_app"
NODES = 2
TEST_IMAGES = 28
SEED = 1
RUN_SECONDS = 1800
PACKAGES = ("flwr", "torch", "torchvision", "numpy", "pillow")
COLUMNS = (
    "", "round, s", "of it training, s", "rest, s", "stock's rest / rest", "first round, s", "whole run, s",
    "MB sent a visit", "MB received a visit", "rests, s",
)  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """An app and its settings beyond those of the job.

    Attributes:
        app: Its folder.
        settings: Run config.
    """

    app: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


CONTENDERS = {
    "stock": Contender(STOCK),
    "ours": Contender(ROOT),
    "ours, bf16 payload": Contender(ROOT, {"payload": "bf16"}),
    "ours, head": Contender(ROOT, {"trainable": "head"}),
    "ours, lora": Contender(ROOT, {"trainable": "lora", "trainable-args": "rank=8"}),
}


@dataclass(frozen=True)
class Job:
    """What every contender does.

    Attributes:
        model: A network of torchvision; for stock a ResNet.
        rounds: Of one run.
        images: Of each client.
        image_size: Side in pixels; the files are larger by a third.
        batch_size: A divisor of `images`, so that all contenders take the same steps.
        test_images: On which the global model is tested after each round.
    """

    model: str
    rounds: int
    images: int
    image_size: int
    batch_size: int
    test_images: int = TEST_IMAGES

    def __post_init__(self) -> None:
        if self.images % self.batch_size:
            raise ValueError(f"'images' is {self.images}; it must be a multiple of 'batch-size' ({self.batch_size}).")
        if self.rounds < 2:
            raise ValueError(f"'rounds' is {self.rounds}; it must be at least 2, since the first is counted apart.")


@dataclass(frozen=True)
class Run:
    """What one run measured.

    Attributes:
        rounds: Seconds of each round, from one tested global model to the next.
        training: Those of the longest training loop of each round.
        whole: Seconds from `flwr run` until the run has finished.
        sent: Bytes that went to the clients in each round; empty if nobody counts them.
        received: Those that came back.
    """

    rounds: list[float]
    training: list[float]
    whole: float
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)

    @property
    def rests(self) -> list[float]:
        """The time not explained by training, of each round but the first."""
        return [total - training for total, training in zip(self.rounds, self.training, strict=True)][1:]


def draw(folder: Path, job: Job) -> None:
    """The sample in the released layout, and the same images, dealt the same way, as stock's lists."""
    release, splits = draw_dealt(folder / "release", NODES, job.images, job.image_size, job.test_images, SEED)
    for name, split in splits.items():
        lines = (
            f"{release.root / key.decode()}\t{label}\n" for key, label in zip(split.keys, split.labels, strict=True)
        )
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


def measure(contender: Contender, job: Job, data: Path, folder: Path) -> Run:
    """One run on a deployment of its own below `folder`; `data` is what `draw` wrote."""
    shared = {
        "num-server-rounds": job.rounds, "model": job.model, "image-size": job.image_size,
        "batch-size": job.batch_size, "local-epochs": 1,
    }  # fmt: skip
    if contender.app == STOCK:
        own: dict[str, Any] = {"data": data, "report": folder / "rounds.json"}
    else:
        own = {
            "data-dir": data / "release", "output-dir": folder, "run-name": "run", "cache-dir": folder / "cache",
            "fraction-train": 1.0, "precision": "fp32", "val-split": "none", "seed": SEED, "stem": "imagenet",
            "strategy-args": f"min-available-nodes={NODES}",
        }  # fmt: skip
    threads = max(1, len(os.sched_getaffinity(0)) // NODES)
    nodes = [f"partition-id={node} num-partitions={NODES}" for node in range(NODES)]
    config = pairs({**shared, **own, **contender.settings})
    with (
        deployment(folder / "home", nodes, {"OMP_NUM_THREADS": str(threads)}) as started,
        arrivals(folder / "run" / "metrics.jsonl") as lines,
        Stopwatch() as watch,
    ):
        started.run(contender.app, "-c", config, timeout=RUN_SECONDS)
    if contender.app == STOCK:
        entries = json.loads((folder / "rounds.json").read_text(encoding="utf-8"))
        return Run([e["seconds"] for e in entries], [e["training-seconds"] for e in entries], watch.seconds)
    entries = [json.loads(line) for _, line in lines]
    times = [when for when, _ in lines]
    between = [later - earlier for earlier, later in pairwise(times)]
    return Run(
        [entries[0]["seconds"], *between],
        [entry["slowest-training-seconds"] for entry in entries],
        watch.seconds,
        [entry["sent-bytes"] for entry in entries],
        [entry["received-bytes"] for entry in entries],
    )


def row(runs: list[Run], stock: list[Run] | None) -> list[float | str]:
    """One row of the table without its name: medians over all later rounds of all runs."""

    def rest(of: list[Run]) -> float:
        return statistics.median([seconds for run in of for seconds in run.rests])

    def megabytes_a_visit(of_rounds: list[int]) -> float | str:
        return statistics.median(of_rounds) / NODES / 1e6 if of_rounds else ""

    return [
        statistics.median([seconds for run in runs for seconds in run.rounds[1:]]),
        statistics.median([seconds for run in runs for seconds in run.training[1:]]),
        rest(runs),
        rest(stock) / rest(runs) if stock else "",
        statistics.median([run.rounds[0] for run in runs]),
        statistics.median([run.whole for run in runs]),
        megabytes_a_visit([count for run in runs for count in run.sent[1:]]),
        megabytes_a_visit([count for run in runs for count in run.received[1:]]),
        " ".join(f"{seconds:.1f}" for run in runs for seconds in run.rests),
    ]


def main(
    contender: Annotated[list[str] | None, typer.Option(help="May be repeated; all by default.")] = None,
    model: Annotated[str, typer.Option(help="A network of torchvision; stock has resnet18, 34 and 50.")] = "resnet50",
    rounds: Annotated[int, typer.Option(help="Rounds of each run; the first is reported separately.")] = 5,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.")] = 3,
    images: Annotated[int, typer.Option(help="Images of each client.")] = 64,
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 48,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 16,
    test_images: Annotated[int, typer.Option(help="On which the global model is tested.")] = TEST_IMAGES,
) -> None:
    job = Job(model, rounds, images, image_size, batch_size, test_images)
    runs: dict[str, list[Run]] = {name: [] for name in contender or CONTENDERS}
    with tempfile.TemporaryDirectory() as temporary:
        draw(Path(temporary), job)
        for repeat in range(repeats):
            for name, measured in runs.items():
                folder = Path(temporary) / f"{repeat}-{len(name)}-{name.replace(' ', '-')}"
                measured.append(measure(CONTENDERS[name], job, Path(temporary), folder))
                rests = " ".join(f"{seconds:.1f}" for seconds in measured[-1].rests)
                print(f"run {repeat + 1} of {repeats}, {name}: {rests} s besides training", file=sys.stderr)
    rows = [(name, *row(measured, runs.get("stock"))) for name, measured in runs.items()]
    report(f"rounds of a deployment: {model}, {NODES} nodes, {images} images each", COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
