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

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.client.visits import Repeats, Threads, in_turn, print_times, run_config
from benchmarks.data.__main__ import draw_release
from benchmarks.tools.command import run_command
from config.run_config import RunConfig
from probe.arguments import Config

KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "before": {"inspection": "before"},
    "both": {"inspection": "both"},
    "a tenth held out": {"inspection": "both", "holdout-fraction": 0.1},
}


def measure(config: RunConfig, images: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of visits, by kind."""
    with tempfile.TemporaryDirectory() as temporary:
        draw_release(Path(temporary) / "release", images)
        flat = {
            **config.to_flat(),
            "data-dir": f"{temporary}/release",
            "cache-dir": f"{temporary}/cache",
            "state-dir": f"{temporary}/state",
        }
        return in_turn({kind: RunConfig.from_flat({**flat, **changes}) for kind, changes in KINDS.items()}, repeats)


def main(
    config: Config = None,
    images: Annotated[int, typer.Option(help="Images of the client.", min=2)] = 200,
    epochs: Annotated[int, typer.Option(help="Epochs of the visit.", min=1)] = 1,
    threads: Threads = 1,
    repeats: Repeats = 3,
) -> None:
    run = run_config(config, epochs, threads)
    print_times(measure(run, images, repeats), "none", run, images)


if __name__ == "__main__":
    run_command(main, __doc__)
