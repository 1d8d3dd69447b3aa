"""What the host waits for in a visit, by PyTorch's own alarm and by the profiler."""

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.speed import config_of
from benchmarks.gpu.step import Scale, emit, scale
from benchmarks.tools.our_loop import our_visit
from task import pick_compute

PROFILED_STEPS = 6  # the profiler takes minutes over an epoch


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


def main() -> None:
    if not torch.cuda.is_available():
        emit("waits", "needs a GPU")
        return
    waits(scale())


if __name__ == "__main__":
    main()
