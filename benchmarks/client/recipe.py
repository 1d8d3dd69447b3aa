"""One client's visit: the public notebook's loop compared with ours, on the same images and number of steps.

    python -m benchmarks.client.recipe [--images 128] [--epochs 2] [--image-size 224] [--batch-size 64] [--repeats 3]

ResNet-50 on photos of 256 pixels in files, on all cores. Each visit is a separate process, timed without its imports.

- notebook: its loop (Sprinter1999/Clothing1M_FedAvg) rewritten by us: PyTorch's default layout, a new SGD object for
  every batch, Pillow decodes every image in every epoch in workers of a DataLoader; autocast to fp16 on a GPU, which on
  a CPU is fp32, as there.
- ours: the app's ClientApp answers one train message with `preset = "notebook"`: images are decoded once, and training
  is what every visit does. Also in fp32, to show the effect of precision alone, where that is not the default.
- ours, later visits: the same client again, whose images have already been decoded.

Contenders take turns; medians of repeats. Decoded images are deleted before each first visit.
"""

import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from flwr.app import ArrayRecord
from torch import nn

from benchmarks.data.__main__ import Notebook, draw_release
from benchmarks.tools.command import run_command
from benchmarks.tools.in_process import answer_alone
from benchmarks.tools.report import Stopwatch, report
from config.resolve import resolve
from data.release import open_release
from task import build_model, pick_compute

WORKERS = 4  # the notebook's; no more than there are cores, or PyTorch warns
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "simplejpeg")
COLUMNS = ("", "seconds", "images/s", "x notebook", "least to most, s")


def notebook_visit(root: Path, images: int, epochs: int, image_size: int, batch_size: int) -> int:
    """Train as the notebook does; how many images went through a step."""
    from torchvision import models  # takes two seconds, and only this contender needs it

    release = open_release(root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: nn.Module = models.resnet50(weights=None, num_classes=14).to(device)
    split = release.split("noisy_train")
    labels = torch.from_numpy(split.labels[:images].astype("int64"))
    files = Notebook([release.store.place(key) for key in split.keys[:images]], image_size)
    workers = min(WORKERS, len(os.sched_getaffinity(0)))
    loader = torch.utils.data.DataLoader(
        files, batch_size, shuffle=True, num_workers=workers, drop_last=True, multiprocessing_context="fork"
    )
    model.train()
    seen = 0
    for _ in range(epochs):
        for inputs, rows in loader:
            optimizer = torch.optim.SGD(
                model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
            )
            with torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
                loss = nn.functional.cross_entropy(model(inputs.to(device)), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            seen += len(rows)
    return seen


def our_visit(
    root: Path, images: int, epochs: int, image_size: int, batch_size: int, precision: str, cache: Path
) -> int:
    """One train message to the real ClientApp, which holds all `images`; how many went through a step."""
    config = resolve(
        {
            "preset": "notebook", "pretrained": "none", "data-dir": str(root), "cache-dir": str(cache),
            "image-size": image_size, "stem": "imagenet", "batch-size": batch_size, "local-epochs": epochs,
            "precision": precision,
        }
    )  # fmt: skip
    reply = answer_alone(config.to_flat(), ArrayRecord(build_model("resnet50", 14, seed=1).state_dict()))
    if reply.has_error():
        raise RuntimeError(reply.error.reason)
    seen: Any = reply.content.metric_records["metrics"]["images-seen"]
    return int(seen)


def timed(visit: Callable[..., int], *arguments: Any) -> float:
    """Seconds of a visit in this process.

    Raises:
        RuntimeError: It took another number of steps than the others.
    """
    with Stopwatch() as watch:
        seen = visit(*arguments)
    images, epochs, _, batch_size = arguments[1:5]
    if seen != images // batch_size * batch_size * epochs:
        raise RuntimeError(f"{visit.__name__} took steps on {seen} images.")
    return watch.seconds


def main(
    images: Annotated[int, typer.Option(help="Images of the client; a multiple of the batch.")] = 128,
    epochs: Annotated[int, typer.Option(help="Epochs of the visit; the notebook has 5.")] = 2,
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 224,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.", min=1)] = 3,
) -> None:
    times: dict[str, list[float]] = {}
    compute = pick_compute("auto")
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "release"
        draw_release(root, images)
        job = (root, images, epochs, image_size, batch_size)
        for repeat in range(repeats):
            caches = {precision: Path(temporary) / f"{precision}-{repeat}" for precision in ("fp32", "auto")}
            contenders: dict[str, tuple[Any, ...]] = {
                "notebook": (notebook_visit, *job),
                "ours, fp32": (our_visit, *job, "fp32", caches["fp32"]),
                f"ours ({compute})": (our_visit, *job, "auto", caches["auto"]),
                "ours, later visits": (our_visit, *job, "auto", caches["auto"]),
            }
            if compute.dtype is torch.float32:
                del contenders["ours, fp32"]  # it is what `auto` means here
            for name, visit in contenders.items():
                with ProcessPoolExecutor(1, spawn) as process:
                    times.setdefault(name, []).append(process.submit(timed, *visit).result())
    count = images // batch_size * batch_size * epochs
    base = statistics.median(times["notebook"])
    rows = [
        (name, median, count / median, base / median, f"{min(seconds):.1f} to {max(seconds):.1f}")
        for name, seconds in times.items()
        for median in [statistics.median(seconds)]
    ]
    title = f"a visit: ResNet-50, {images} images of {image_size} pixels, {epochs} epochs, batches of {batch_size}"
    report(title, COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
