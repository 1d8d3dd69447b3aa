"""What grows with the federation: seconds and memory of whole simulated runs.

    python -m benchmarks.scaling [--axis nodes --axis clients] [--point 10 --point 100] [--repeats 1]

Each point is a `flwr run` on its own SuperLink with two Ray actors, with one axis varied and all else fixed:
virtual nodes (10 of them train in each round), clients that train in a round (of 1,000 nodes), images of each client,
and the model. Everything else is small: 10 nodes, 16 images of 32 pixels each, `cnn`. The pack has many keys and few
pictures; nothing is decoded or cached before a run.

- start: from the command to the roll call. Flower bundles the app, starts the simulation and makes the nodes; imports.
- first answer: Ray and its actors start, and import.
- other answers: the rest of the roll call, one query to each node.
- first round: clients that take part for the first time decode their images. With many more nodes than clients a round,
  they are new in every later round as well.
- later rounds: median; "besides" is the time not explained by the slowest visit, "ms a visit" a round without
  evaluation divided by its clients: with two actors, half of what a visit takes one of them.
- memory: most PSS at one time (`benchmarks.tools.memory`) of the process that holds server and nodes, of the largest
  actor, and of the SuperLink with everything below it, Ray's own processes and its object store included.
"""

import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.data.repeated import write_repeated
from benchmarks.tools.command import run_command
from benchmarks.tools.memory import PeakMemory
from benchmarks.tools.processes import arrivals, deployment, pairs
from benchmarks.tools.report import report
from experiments.processes import Descendants

ROOT = Path(__file__).parents[1]
ACTORS = 2
ROUNDS = 4  # of each run; the first is counted apart
IMAGE_SIZE = 32
BATCH_SIZE = 16
RUN_SECONDS = 1200
# Its title, and its script: Ray cannot set a title if the first variable of the environment has been changed, and
# passes variables on in a random order. The script is also an argument of Ray's own daemon, which is smaller.
ACTOR = ("ray::ClientAppActor", "/default_worker.py ")
PACKAGES = ("flwr", "ray", "torch", "numpy")
COLUMNS = (
    "start, s", "first answer, s", "other answers, s", "first round, s", "later rounds, s", "besides, s", "ms a visit",
    "server, MiB", "actor, MiB", "all, MiB",
)  # fmt: skip
ROLL_CALL = re.compile(r"\d+ nodes answered within ([\d.]+) s, the first one after ([\d.]+) s")


@dataclass(frozen=True)
class Point:
    """One run.

    Attributes:
        nodes: Virtual ones.
        clients: That train in each round.
        images: Of each node, in one visit.
        model: Of the run config.
    """

    nodes: int = 10
    clients: int = 10
    images: int = 16
    model: str = "cnn"


@dataclass(frozen=True)
class Axis:
    """What is varied: a field of `Point`, everything else as in `base`."""

    field: str
    base: Point
    values: tuple[Any, ...]

    def points(self, chosen: Sequence[str]) -> dict[str, Point]:
        """By the shown value; all of them, or those that are `chosen`.

        Raises:
            ValueError: None of the values is chosen.
        """
        points = {f"{value:,}" if isinstance(value, int) else value: replace(self.base, **{self.field: value})
                  for value in self.values}  # fmt: skip
        wanted = {name: point for name, point in points.items() if not chosen or name.replace(",", "") in chosen}
        if not wanted:
            known = ", ".join(map(str, self.values))
            raise ValueError(f"'point' is {', '.join(chosen)}; of axis {self.field} it must be among {known}.")
        return wanted


AXES = {
    "nodes": Axis("nodes", Point(), (10, 100, 1_000, 10_000)),
    "clients": Axis("clients", Point(nodes=1_000), (2, 10, 100, 1_000)),
    "images": Axis("images", Point(), (64, 256, 1_024, 4_096)),
    "model": Axis("model", Point(), ("cnn", "resnet18", "resnet34", "resnet50")),
}


@dataclass(frozen=True)
class Run:
    """What one run measured.

    Attributes:
        start: Seconds from the command to the roll call.
        first_answer: Seconds of the roll call until a node answered.
        other_answers: Seconds of the rest of it.
        rounds: The lines of metrics.jsonl.
        server: Most bytes of the process with the server in it.
        actor: Most bytes of an actor.
        all: Most bytes of all processes at one time.
    """

    start: float
    first_answer: float
    other_answers: float
    rounds: list[dict[str, Any]]
    server: int
    actor: int
    all: int


def measure(point: Point, folder: Path) -> Run:
    """One run, with everything that it leaves below `folder`, which does not exist yet."""
    folder.mkdir()
    write_repeated(folder / "release.pack", point.nodes * point.images, IMAGE_SIZE)
    config = {
        "data-dir": folder / "release.pack", "output-dir": folder, "run-name": "run", "cache-dir": folder / "cache",
        "model": point.model, "num-server-rounds": ROUNDS, "fraction-train": point.clients / point.nodes,
        "image-size": IMAGE_SIZE, "stem": "imagenet", "batch-size": BATCH_SIZE, "val-split": "none",
    }  # fmt: skip
    federation = f"num-supernodes={point.nodes} client-resources-num-cpus=1 init-args-num-cpus={ACTORS}"
    with (
        deployment(folder / "home", [], {}) as started,
        PeakMemory(Descendants(started.pid)) as memory,
        arrivals(folder / "run" / "metrics.jsonl") as lines,
    ):
        begun = time.time()
        log = started.run(ROOT, "--federation-config", federation, "-c", pairs(config), timeout=RUN_SECONDS)
    return Run(
        *start_up(log, folder / "run", begun),
        rounds=[json.loads(line) for _, line in lines],
        server=memory.peak_of("flwr-simulation"),
        actor=memory.peak_of(*ACTOR),
        all=memory.peak,
    )


def roll_call(log: str) -> tuple[float, float]:
    """Seconds until all nodes had answered, and until the first one had.

    Raises:
        ValueError: The log does not say so.
    """
    if not (found := ROLL_CALL.search(log)):
        raise ValueError(f"the log does not say how long the roll call took:\n{log}")
    return float(found[1]), float(found[2])


def start_up(log: str, run_dir: Path, begun: float) -> tuple[float, float, float]:
    """Seconds from the command, given at the time `begun`, to the roll call, to the first answer, and to the last."""
    whole, first = roll_call(log)
    # The server writes the config as soon as all nodes have answered.
    return (run_dir / "config.toml").stat().st_mtime - whole - begun, first, whole - first


def row(runs: Sequence[Run]) -> list[float]:
    """One row of the table without its name: medians over runs and their later rounds, and the most memory."""
    later = [entry for run in runs for entry in run.rounds[1:]]
    return [
        statistics.median(run.start for run in runs),
        statistics.median(run.first_answer for run in runs),
        statistics.median(run.other_answers for run in runs),
        statistics.median(run.rounds[0]["seconds"] for run in runs),
        statistics.median(entry["seconds"] for entry in later),
        statistics.median(entry["seconds"] - entry["slowest-client-seconds"] for entry in later),
        statistics.median(
            1000 * (entry["seconds"] - entry["evaluation-seconds"]) / len(entry["sampled-partitions"])
            for entry in later
        ),
        *(round(max(getattr(run, name) for run in runs) / 2**20) for name in ("server", "actor", "all")),
    ]


def main(
    axis: Annotated[list[str] | None, typer.Option(help=f"{', '.join(AXES)}; all by default.")] = None,
    point: Annotated[list[str] | None, typer.Option(help="Values of the axes; all by default.")] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each point.", min=1)] = 1,
) -> None:
    for name in axis or AXES:
        rows = []
        for value, one in AXES[name].points(point or []).items():
            runs = []
            for repeat in range(repeats):
                with tempfile.TemporaryDirectory() as temporary:
                    runs.append(measure(one, Path(temporary) / "run"))
                print(f"{name} {value}, run {repeat + 1} of {repeats}: done", file=sys.stderr, flush=True)
            rows.append((value, *row(runs)))
        base = ", ".join(f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"
                         for key, value in vars(AXES[name].base).items() if key != name)  # fmt: skip
        report(f"scaling with {name}: {base}", (name, *COLUMNS), rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
