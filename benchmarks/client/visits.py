"""What the benchmarks of single visits share: visits of several kinds that take turns, and their table."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
import typer
from flwr.app import ArrayRecord

from benchmarks.tools.in_process import answer_alone
from benchmarks.tools.report import report
from config.run_config import RunConfig
from learning.network import NetworkSpec, build
from learning.replica import kept_replica
from learning.shared_state import shared_state
from methods import build_method
from probe.session import read_config
from task import pick_compute

CLASSES = 14
PACKAGES = ("torch", "torchvision", "numpy")
Threads = Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)]
Repeats = Annotated[int, typer.Option(help="Visits of each kind.", min=1)]
Times = Mapping[str, Sequence[float]]


def run_config(given: Sequence[str] | None, epochs: int, threads: int) -> RunConfig:
    """What the user set, or else a small ResNet, with that many local epochs; PyTorch gets so many threads."""
    torch.set_num_threads(threads)
    return read_config([*(given or ["model='resnet18' image-size=64"]), f"local-epochs={epochs}"])


def in_turn(
    configs: Mapping[str, RunConfig], repeats: int, prepare: Callable[[str], None] = lambda kind: None
) -> dict[str, list[float]]:
    """CPU seconds of visits, by kind; a round of visits before the first decodes, and warms up.

    Args:
        configs: By kind.
        repeats: Visits of each kind.
        prepare: Called with a kind before each of its visits.
    """
    times: dict[str, list[float]] = {kind: [] for kind in configs}
    for repeat in range(-1, repeats):
        for kind, config in configs.items():
            prepare(kind)
            seconds = visit_seconds(config)
            if repeat >= 0:
                times[kind].append(seconds)
    return times


def visit_seconds(config: RunConfig) -> float:
    """CPU time of one visit to the only client, which holds all images.

    Raises:
        RuntimeError: The client refused.
    """
    spec = NetworkSpec.of(config, build_method(config), CLASSES)
    kept_replica(spec.to_be_filled(), pick_compute(config.precision).device, config.compile)
    arrays = ArrayRecord(shared_state(build(spec)))
    began = time.process_time()
    reply = answer_alone(config.to_flat(), arrays)
    seconds = time.process_time() - began
    if reply.has_error():
        raise RuntimeError(reply.error.reason)
    return seconds


def print_times(times: Times, base: str, run: RunConfig, images: int) -> None:
    """The table; each kind's median is compared with that of the kind `base`."""
    medians = {kind: statistics.median(seconds) for kind, seconds in times.items()}
    rows = [
        (kind, median, f"{median / medians[base]:.3g}", f"{min(times[kind]):.3g} to {max(times[kind]):.3g}")
        for kind, median in medians.items()
    ]
    compute = f"{pick_compute(run.precision)}, {torch.get_num_threads()} threads"
    title = f"a visit: {run.model}, {images} images of {run.image_size} pixels, {run.local_epochs} epochs, {compute}"
    report(title, ("", "CPU s", f"x {base}", "least to most, s"), rows, PACKAGES)
