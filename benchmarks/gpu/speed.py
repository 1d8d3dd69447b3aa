"""Images per second: a bare loop and one client's visit.

The bare loop is PyTorch as an expert would write it (channels-last, autocast, fused SGD, autotuning), with all images
on the device. A visit is the app's own loop. Both run in one process and take turns.
"""

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.step import CLASSES, Scale, emit, scale, seconds
from benchmarks.tools.bare_loop import Load, bare_visit
from benchmarks.tools.our_loop import our_visit
from config.run_config import RunConfig
from task import Compute, pick_compute

AIM = 0.97  # of the bare loop


def config_of(size: Scale, **changes: Any) -> RunConfig:
    base: dict[str, Any] = {
        "model": size.model, "image_size": size.image_size, "stem": "imagenet", "batch_size": size.batch_size,
        "learning_rate": 0.01, "momentum": 0.9, "local_epochs": 1,
    }  # fmt: skip
    return RunConfig(**{**base, **changes})


def bare_loop(size: Scale, compute: Compute) -> Callable[[], None]:
    """One epoch over ``size.steps`` batches."""
    load = Load(
        size.model, CLASSES, size.steps * size.batch_size, size.image_size, size.batch_size, bf16=False,
        learning_rate=0.01,
    )  # fmt: skip
    return partial(bare_visit(load, compute.device, compute.dtype), load.images)


def rates(size: Scale, contenders: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Images per second, medians; each has run once before."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(size.repeats + 1):
        for name, run in contenders.items():
            times[name].append(seconds(run, device))
    return {name: size.steps * size.batch_size / statistics.median(found[1:]) for name, found in times.items()}


def one_client(size: Scale) -> None:
    compute = pick_compute("auto", autotune=True)
    contenders: dict[str, Callable[[], object]] = {
        "bare loop": bare_loop(size, compute),
        "visit": our_visit(config_of(size), compute, size.steps),
        "visit, images copied ahead": our_visit(config_of(size), compute, size.steps, on_device=False),
        "visit, crop-flip": our_visit(config_of(size, augmentation="crop-flip"), compute, size.steps),
        "visit, crop-flip-jitter": our_visit(config_of(size, augmentation="crop-flip-jitter"), compute, size.steps),
    }
    found = rates(size, contenders, compute.device)
    what = f"{size.model}, {size.image_size} pixels, batches of {size.batch_size}, {compute}"
    bare = found["bare loop"]
    for name, rate in found.items():
        emit(f"{name}: {what}", rate, "images/s")
        if name != "bare loop":
            required = rate >= AIM * bare if name == "visit" and compute.device.type == "cuda" else None
            emit(
                f"{name} / bare loop",
                rate / bare,
                ok=required,
                aim=f"at least {AIM}" if required is not None else "",
            )


def other_precisions(size: Scale) -> None:
    for precision, autotune in (("bf16", False), ("fp16", True), ("tf32", True), ("fp32", True)):
        compute = pick_compute(precision, autotune)
        found = rates(size, {"visit": our_visit(config_of(size), compute, size.steps)}, compute.device)
        emit(f"visit: {precision}, autotune {autotune}", found["visit"], "images/s")


def main() -> None:
    size = scale()
    one_client(size)
    if torch.cuda.is_available():
        other_precisions(size)


if __name__ == "__main__":
    main()
