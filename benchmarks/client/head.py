"""One client's visit with adapters, and with a head on images and on kept features, compared with training everything.

    python -m benchmarks.client.head [-c "model='resnet18' image-size=64"] [--images 200] [--epochs 2] [--repeats 3]

The app's ClientApp answers train messages, all in one process that has built the network; photos in files have been
decoded before. CPU time, since seconds would also count what else the machine does.

- all: everything trains.
- lora: adapters of rank 8 beside the weights, and the last layer.
- head, images: the last layer trains; each image is mirrored at random, so that its features are new in each epoch.
- head, first visit: nothing is augmented; features are computed and kept.
- head, later visits: they are there.

Contenders take turns; medians of repeats.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from flwr.app import ArrayRecord

from benchmarks.data.__main__ import draw_release
from benchmarks.tools.command import run_command
from benchmarks.tools.in_process import answer_alone
from benchmarks.tools.report import report
from config.run_config import RunConfig
from data.images.shared_files import FEATURES
from learning.network import NetworkSpec, build
from learning.replica import kept_replica
from learning.shared_state import shared_state
from methods import build_method
from probe.arguments import Config
from probe.session import read_config
from task import pick_compute

CLASSES = 14
PACKAGES = ("torch", "torchvision", "numpy")
COLUMNS = ("", "CPU s", "x all", "least to most, s")
KINDS = {
    "all": {"trainable": "all"},
    "lora": {"trainable": "lora"},
    "head, images": {"trainable": "head", "augmentation": "flip"},
    "head, first visit": {"trainable": "head"},
    "head, later visits": {"trainable": "head"},
}


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


def measure(config: RunConfig, images: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of visits, by kind."""
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as temporary:
        draw_release(Path(temporary) / "release", images)
        cache = Path(temporary) / "cache"
        flat = {**config.to_flat(), "augmentation": "none", "data-dir": f"{temporary}/release", "cache-dir": str(cache)}
        configs = {kind: RunConfig.from_flat({**flat, **changes}) for kind, changes in KINDS.items()}
        for repeat in range(-1, repeats):  # the first decodes, and warms up
            for kind, one in configs.items():
                if kind == "head, first visit":
                    for path in cache.glob(f"*{FEATURES}"):
                        path.unlink()
                seconds = visit_seconds(one)
                if repeat >= 0:
                    times[kind].append(seconds)
    return times


def main(
    config: Config = None,
    images: Annotated[int, typer.Option(help="Images of the client.", min=1)] = 200,
    epochs: Annotated[int, typer.Option(help="Epochs of the visit.", min=1)] = 2,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    repeats: Annotated[int, typer.Option(help="Visits of each kind.", min=1)] = 3,
) -> None:
    torch.set_num_threads(threads)
    given = config or ["model='resnet18' image-size=64"]
    run = read_config([*given, f"local-epochs={epochs}"])
    times = measure(run, images, repeats)
    base = statistics.median(times["all"])
    rows = [
        (kind, median, f"{median / base:.3g}", f"{min(seconds):.3g} to {max(seconds):.3g}")
        for kind, seconds in times.items()
        for median in [statistics.median(seconds)]
    ]
    compute = f"{pick_compute(run.precision)}, {threads} threads"
    title = f"a visit: {run.model}, {images} images of {run.image_size} pixels, {epochs} epochs, {compute}"
    report(title, COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
