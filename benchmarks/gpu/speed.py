"""Images per second: a bare loop, one client's visit, several clients at once; and what the host waits for.

The bare loop is PyTorch as an expert would write it (channels-last, autocast, fused SGD, autotuning), with all images
on the device. A visit is the app's own loop. Both run in one process and take turns; clients at once are processes of
their own, as Ray's actors are.
"""

import itertools
import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.step import CLASSES, Scale, emit, scale, seconds
from benchmarks.tools.bare_loop import Load, bare_visit
from benchmarks.tools.our_loop import our_visit
from config.run_config import RunConfig
from probe.concurrent import try_clients
from probe.recommendation import Needs, share_of_each
from probe.session import look_at_hardware
from task import Compute, pick_compute

AIM_VISIT, AIM_CLIENTS = 0.97, 0.95
PROFILED_STEPS = 6  # the profiler takes minutes over an epoch


def config_of(size: Scale, **changes: Any) -> RunConfig:
    base: dict[str, Any] = {
        "model": size.model, "image_size": size.image_size, "batch_size": size.batch_size, "learning_rate": 0.01,
        "momentum": 0.9, "local_epochs": 1,
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


def one_client(size: Scale) -> float:
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
            required = rate >= AIM_VISIT * bare if name == "visit" and compute.device.type == "cuda" else None
            emit(
                f"{name} / bare loop",
                rate / bare,
                ok=required,
                aim=f"at least {AIM_VISIT}" if required is not None else "",
            )
    return bare


def other_precisions(size: Scale) -> None:
    for precision, autotune in (("bf16", False), ("fp16", True), ("tf32", True), ("fp32", True)):
        compute = pick_compute(precision, autotune)
        found = rates(size, {"visit": our_visit(config_of(size), compute, size.steps)}, compute.device)
        emit(f"visit: {precision}, autotune {autotune}", found["visit"], "images/s")


def waits(size: Scale) -> None:
    """What makes the host wait for the device inside an epoch: by PyTorch's own alarm, and by the profiler."""
    size = replace(size, steps=PROFILED_STEPS)
    compute = pick_compute("auto", autotune=True)
    for augmentation, on_device in itertools.product(("none", "crop-flip", "crop-flip-jitter"), (True, False)):
        run = our_visit(config_of(size, augmentation=augmentation), compute, size.steps, on_device)
        run()
        what = f"{augmentation}, images {'on the device' if on_device else 'copied ahead'}, {size.steps} steps"
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        torch.cuda.set_sync_debug_mode("default")
        where = sorted({f"{Path(found.filename).name}:{found.lineno}" for found in caught})
        emit(f"synchronisations, {what}", len(caught), ", ".join(where))
        with torch.profiler.profile() as profile:
            run()
        counts = {event.key: event.count for event in profile.key_averages()
                  if "Synchronize" in event.key or "Memcpy HtoD" in event.key}  # fmt: skip
        emit(f"profiler, {what}", str(counts))


def clients_at_once(size: Scale, bare: float) -> None:
    hardware = look_at_hardware()
    config = config_of(size)
    for count in size.at_once:
        try:
            share = share_of_each(count, hardware, Needs(0, 0))
            trial = try_clients(config, count, share, size.steps * 2, images=size.images)
        except Exception as error:
            emit(f"{count} clients at once", f"{type(error).__name__}: {error}", ok=False)
            continue
        emit(f"{count} clients at once, {share}", trial.images_per_second, "images/s")
        required = trial.images_per_second >= AIM_CLIENTS * bare if hardware.gpus and count > 1 else None
        emit(f"{count} clients at once / bare loop", trial.images_per_second / bare, ok=required,
             aim=f"at least {AIM_CLIENTS}" if required is not None else "")  # fmt: skip
        emit(f"{count} clients at once: GPU memory together", trial.gpu / 2**30, "GiB")


def main() -> None:
    size = scale()
    bare = one_client(size)
    torch.cuda.empty_cache()
    clients_at_once(size, bare)
    if torch.cuda.is_available():
        other_precisions(size)
        waits(size)


if __name__ == "__main__":
    main()
