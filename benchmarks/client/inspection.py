"""What it costs a client's visit to look at the models that it receives and trains, and to hold images out.

    python -m benchmarks.client.inspection [-c "model='resnet18' image-size=64"] [--images 200] [--epochs 1]

The app's ClientApp answers train messages, all in one process that has built the network; photos in files have been
decoded before. CPU time, since seconds would also count what else the machine does. The share grows as epochs get
fewer: looking at an image is a forward pass, and a step of training about three.

- none: training alone.
- before: the received model on all training images.
- both: the trained one as well.
- a tenth held out: both, and both models on what is held out, which is not trained on.

Contenders take turns; medians of repeats.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.client.head import visit_seconds
from benchmarks.data.__main__ import draw_release
from benchmarks.tools.command import run_command
from benchmarks.tools.report import report
from config.run_config import RunConfig
from probe.arguments import Config
from probe.session import read_config
from task import pick_compute

PACKAGES = ("torch", "torchvision", "numpy")
COLUMNS = ("", "CPU s", "x none", "least to most, s")
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "before": {"inspection": "before"},
    "both": {"inspection": "both"},
    "a tenth held out": {"inspection": "both", "holdout-fraction": 0.1},
}


def measure(config: RunConfig, images: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of visits, by kind."""
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as temporary:
        draw_release(Path(temporary) / "release", images)
        flat = {
            **config.to_flat(),
            "data-dir": f"{temporary}/release",
            "cache-dir": f"{temporary}/cache",
            "state-dir": f"{temporary}/state",
        }
        configs = {kind: RunConfig.from_flat({**flat, **changes}) for kind, changes in KINDS.items()}
        for repeat in range(-1, repeats):  # the first decodes, and warms up
            for kind, one in configs.items():
                seconds = visit_seconds(one)
                if repeat >= 0:
                    times[kind].append(seconds)
    return times


def main(
    config: Config = None,
    images: Annotated[int, typer.Option(help="Images of the client.", min=2)] = 200,
    epochs: Annotated[int, typer.Option(help="Epochs of the visit.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    repeats: Annotated[int, typer.Option(help="Visits of each kind.", min=1)] = 3,
) -> None:
    torch.set_num_threads(threads)
    given = config or ["model='resnet18' image-size=64"]
    run = read_config([*given, f"local-epochs={epochs}"])
    times = measure(run, images, repeats)
    base = statistics.median(times["none"])
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
