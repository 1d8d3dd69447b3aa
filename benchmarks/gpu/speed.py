"""Images per second: a bare loop, one client's visit, several clients at once; and what makes the host wait.

The bare loop is PyTorch as somebody would write it who knows it well (channels-last, autocast, fused SGD, autotuning),
with all images on the device. A visit is the app's own loop. Both in one process, in turns; clients at once are
processes of their own, as Ray's actors are.
"""

import itertools
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from benchmarks.gpu.step import CLASSES, Scale, emit, scale, synchronize
from config.run_config import RunConfig
from learning.augmentation import stored_size
from learning.optimizer import LocalSGD
from learning.training import train_locally
from methods import METHODS
from probe.concurrent import try_clients
from probe.recommendation import Needs, share_of_each
from probe.session import look_at_hardware
from task import Compute, build_model, derived_generator, pick_compute

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
    with torch.random.fork_rng():
        model: Any = torchvision.models.get_model(size.model, weights=None, num_classes=CLASSES)
    device = compute.device
    model = model.to(device, memory_format=torch.channels_last).train()
    count = size.steps * size.batch_size
    images = torch.randint(256, (count, size.image_size, size.image_size, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(CLASSES, (count,), device=device)
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)).to(device), torch.tensor((0.229, 0.224, 0.225)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def epoch() -> None:
        order = torch.randperm(count, device=device)
        for rows in order.split(size.batch_size):  # type: ignore[no-untyped-call]
            inputs = images[rows].float().div_(255).sub_(mean).div_(deviation).permute(0, 3, 1, 2)
            with torch.autocast(device.type, compute.dtype, enabled=compute.dtype is not torch.float32):
                logits = model(inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def visit(size: Scale, compute: Compute, config: RunConfig, on_device: bool = True) -> Callable[[], None]:
    """One epoch of the app's loop."""
    model = build_model(config.model, CLASSES, seed=0).to(compute.device)
    if config.compile:
        model.compile(dynamic=False)
    optimizer = LocalSGD(model)
    count, side = size.steps * size.batch_size, stored_size(config.augmentation, config.image_size)
    generator = derived_generator(1, "speed")
    images = torch.randint(256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    images = images.to(compute.device) if on_device else images
    labels = torch.randint(CLASSES, (count,), generator=generator)
    method = METHODS[config.method]()

    def epoch() -> None:
        train_locally(model, images, labels, method, config, compute, generator, optimizer=optimizer)

    return epoch


def rates(size: Scale, contenders: dict[str, Callable[[], None]], device: torch.device) -> dict[str, float]:
    """Images per second, medians; each has run once before."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(size.repeats + 1):
        for name, run in contenders.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: size.steps * size.batch_size / statistics.median(times) for name, times in seconds.items()}


def one_client(size: Scale) -> float:
    compute = pick_compute("auto", autotune=True)
    contenders = {
        "bare loop": bare_loop(size, compute),
        "visit": visit(size, compute, config_of(size)),
        "visit, images copied ahead": visit(size, compute, config_of(size), on_device=False),
        "visit, crop-flip": visit(size, compute, config_of(size, augmentation="crop-flip")),
        "visit, crop-flip-jitter": visit(size, compute, config_of(size, augmentation="crop-flip-jitter")),
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
        found = rates(size, {"visit": visit(size, compute, config_of(size))}, compute.device)
        emit(f"visit: {precision}, autotune {autotune}", found["visit"], "images/s")


def waits(size: Scale) -> None:
    """What makes the host wait for the device inside an epoch: by PyTorch's own alarm, and by the profiler."""
    size = replace(size, steps=PROFILED_STEPS)
    compute = pick_compute("auto", autotune=True)
    for augmentation, on_device in itertools.product(("none", "crop-flip", "crop-flip-jitter"), (True, False)):
        run = visit(size, compute, config_of(size, augmentation=augmentation), on_device)
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
