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

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.client.visits import Repeats, Threads, in_turn, print_times, run_config
from benchmarks.data.__main__ import draw_release
from benchmarks.tools.command import run_command
from config.run_config import RunConfig
from data.images.shared_files import FEATURES
from probe.arguments import Config

KINDS = {
    "all": {"trainable": "all"},
    "lora": {"trainable": "lora"},
    "head, images": {"trainable": "head", "augmentation": "flip"},
    "head, first visit": {"trainable": "head"},
    "head, later visits": {"trainable": "head"},
}


def measure(config: RunConfig, images: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of visits, by kind."""
    with tempfile.TemporaryDirectory() as temporary:
        draw_release(Path(temporary) / "release", images)
        cache = Path(temporary) / "cache"
        flat = {**config.to_flat(), "augmentation": "none", "data-dir": f"{temporary}/release", "cache-dir": str(cache)}
        configs = {kind: RunConfig.from_flat({**flat, **changes}) for kind, changes in KINDS.items()}

        def prepare(kind: str) -> None:
            if kind == "head, first visit":
                for path in cache.glob(f"*{FEATURES}"):
                    path.unlink()

        return in_turn(configs, repeats, prepare)


def main(
    config: Config = None,
    images: Annotated[int, typer.Option(help="Images of the client.", min=1)] = 200,
    epochs: Annotated[int, typer.Option(help="Epochs of the visit.", min=1)] = 2,
    threads: Threads = 1,
    repeats: Repeats = 3,
) -> None:
    run = run_config(config, epochs, threads)
    print_times(measure(run, images, repeats), "all", run, images)


if __name__ == "__main__":
    run_command(main, __doc__)
