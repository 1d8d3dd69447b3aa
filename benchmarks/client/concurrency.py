"""Images per second of 1, 2, 4, ... clients at once on the same hardware.

    python -m benchmarks.client.concurrency [-c "model='resnet18'"] [--clients 1 --clients 2] [--steps 10] [--repeats 3]

Each client is a process that runs the app's own training loop on random images, with an equal share of the CPUs and of
a GPU's memory; all start together once they are warm. Only training is measured: no messages, no decoding, no server.
Contenders take turns; medians of repeats.
"""

import statistics
from collections.abc import Sequence
from typing import Annotated

import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.report import report
from config.run_config import RunConfig
from probe.arguments import Config
from probe.concurrent import Trial, try_clients
from probe.recommendation import Hardware, Needs, candidates, share_of_each
from probe.session import STEPS, images_of_one_client, look_at_hardware, read_config

PACKAGES = ("torch", "torchvision", "numpy")
COLUMNS = (
    "clients at once",
    "CPUs each",
    "GPU each",
    "images/s together",
    "x fewest",
    "slowest",
    "fastest",
    "peak MiB",
)
FEDERATION = 10  # clients among which the images are dealt; matters on a GPU


def measure(
    config: RunConfig, counts: Sequence[int], steps: int, repeats: int, hardware: Hardware, images: int
) -> list[tuple[float, ...]]:
    """Rows of the table, in the order of `counts`."""
    trials: dict[int, list[Trial]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            share = share_of_each(count, hardware, Needs(0, 0))
            trials[count].append(try_clients(config, count, share, steps, images))
    medians = {count: statistics.median(trial.images_per_second for trial in trials[count]) for count in counts}
    return [_row(trials[count], medians[count], medians[min(counts)]) for count in counts]


def _row(trials: list[Trial], median: float, fewest: float) -> tuple[float, ...]:
    rates = [trial.images_per_second for trial in trials]
    share, peak = trials[0].share, max(trial.peak for trial in trials)
    return (
        trials[0].at_once, int(share.cpus), share.gpus, median, median / fewest, min(rates), max(rates), peak / 2**20,
    )  # fmt: skip


def main(
    config: Config = None,
    clients: Annotated[list[int] | None, typer.Option(help="Clients at once; may be repeated.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Batches of each client.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.", min=1)] = 3,
) -> None:
    run = read_config(config or [])
    hardware = look_at_hardware()
    hardware = Hardware(hardware.cpus, hardware.memory, min(1, hardware.gpus), hardware.gpu_memory)
    counts = list(dict.fromkeys(clients or candidates(hardware, hardware.cpus)))
    steps = steps or STEPS["cuda" if hardware.gpus else "cpu"]
    rows = measure(run, counts, steps, repeats, hardware, images_of_one_client(run, FEDERATION))
    title = f"clients at once: {run.model}, {run.image_size} pixels, batches of {run.batch_size}, {run.precision}"
    report(title, COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
