"""What each part of a step costs: milliseconds until the host has launched it, and until the device has done it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.speed import bare_loop, config_of
from benchmarks.gpu.step import CLASSES, Scale, emit, scale, seconds
from benchmarks.tools.our_loop import our_visit
from data.images.pixels import StoredPixels
from learning.augmentation import AUGMENTATIONS, augment, stored_size
from learning.images import Images
from task import build_model, derived_generator, pick_compute, to_input

REPEATS = 15
STEPS = 12  # of a visit that is profiled
THREADS = (16, 2)  # a client's share of the machine
SHOWN = 6  # kernels
STORED = 16  # batches


def cost(what: str, work: Callable[[], Any], device: torch.device) -> None:
    """Medians of calls that find the device idle."""
    launched: list[float] = []

    def call() -> None:
        began = time.perf_counter()
        work()
        launched.append(time.perf_counter() - began)

    done = [seconds(call, device) for _ in range(REPEATS if device.type == "cuda" else 1)]
    emit(f"{what}: launched after", 1000 * statistics.median(launched), "ms")
    emit(f"{what}: done after", 1000 * statistics.median(done), "ms")


def single_parts(size: Scale) -> None:
    compute = pick_compute("auto", autotune=True)
    device, generator = compute.device, derived_generator(1, "parts")
    count, side = STORED * size.batch_size, stored_size("crop-flip", size.image_size)
    stored = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    pixels = StoredPixels(np.ascontiguousarray(stored[:, : size.image_size, : size.image_size].numpy()))
    rows = torch.randperm(count, generator=generator)[: size.batch_size]
    buffer = torch.empty(
        (size.batch_size, *pixels.shape[1:]), dtype=torch.uint8, pin_memory=device.type == "cuda"
    )  # fmt: skip
    cost("gather a batch by NumPy", lambda: pixels.take(rows.numpy(), buffer.numpy()), device)
    cost("copy a batch to the device", lambda: buffer.to(device, non_blocking=True), device)
    here, moved = stored.to(device), rows.to(device)
    cost("select a batch on the device", lambda: here.index_select(0, moved), device)
    batch = here.index_select(0, moved)

    def view(augmentation: str) -> torch.Tensor:
        return augment(batch, augmentation, size.image_size, generator)

    for augmentation in AUGMENTATIONS:
        cost(f"augment, {augmentation}", lambda name=augmentation: view(name), device)  # type: ignore[misc]
    cut = view("crop-flip")
    cost("normalise", lambda: to_input(cut, compute, "imagenet"), device)
    cost("normalise the centre of larger images", lambda: to_input(view("none"), compute, "imagenet"), device)
    model = build_model(size.model, CLASSES, seed=0).to(device)
    inputs = to_input(cut, compute, "imagenet")

    def forward() -> torch.Tensor:
        with compute.autocast():
            logits: torch.Tensor = model(inputs)
        return logits.float().sum()

    cost("forward", forward, device)
    cost("forward and backward", lambda: torch.autograd.backward(forward()), device)


def streams(size: Scale) -> None:
    """Batches copied ahead, with nothing to compute between them."""
    device = pick_compute("auto").device
    array = np.zeros((STORED * size.batch_size, size.image_size, size.image_size, 3), np.uint8)
    images = Images(StoredPixels(array), device)
    rows = list(torch.randperm(len(array)).split(size.batch_size))  # type: ignore[no-untyped-call]
    for number in (1, 2):
        spent = seconds(lambda: list(map(len, images.batches(rows))), device)
        emit(f"a batch copied ahead, pass {number}", 1000 * spent / len(rows), "ms")


def visits(size: Scale) -> None:
    compute = pick_compute("auto", autotune=True)
    size = replace(size, steps=min(STEPS, size.steps))
    contenders: dict[str, Callable[[], object]] = {"bare loop": bare_loop(size, compute)}
    for augmentation, on_device in (("none", True), ("none", False), ("crop-flip", True), ("crop-flip-jitter", True)):
        name = f"visit, {augmentation}{'' if on_device else ', copied ahead'}"
        contenders[name] = our_visit(config_of(size, augmentation=augmentation), compute, size.steps, on_device)
    for run in contenders.values():
        run()
    threads = torch.get_num_threads()
    for number in THREADS if compute.device.type == "cuda" else (1,):
        torch.set_num_threads(number)
        for name, run in contenders.items():
            walls = [1000 * seconds(run, compute.device) / size.steps for _ in range(3)]
            emit(f"{name}, {number} threads: a step", min(walls), "ms")
    torch.set_num_threads(threads)
    profiled = contenders if compute.device.type == "cuda" else {"bare loop": contenders["bare loop"]}
    for name, run in profiled.items():  # last, since launching is slower once a profiler has run
        times = kernel_times(run, compute.device)
        emit(f"{name}: the device works for a step", sum(times.values()) / size.steps, "ms")
        longest = {kernel[:60]: round(spent / size.steps, 2) for kernel, spent in list(times.items())[:SHOWN]}
        emit(f"{name}: kernels", str(longest))


def kernel_times(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Milliseconds of each kernel, the longest first."""
    with torch.profiler.profile() as profile:
        seconds(run, device)
    kernels = [event for event in profile.key_averages() if event.device_type.name != "CPU"]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    return {event.key: event.self_device_time_total / 1000 for event in kernels}


def main() -> None:
    size = scale()
    for part in (single_parts, streams, visits):
        try:
            part(size)
        except Exception as error:  # the others matter as much
            emit(part.__name__, f"{type(error).__name__}: {error}", ok=False)


if __name__ == "__main__":
    main()
