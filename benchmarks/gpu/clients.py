"""Images per second of several clients at once on one device, each a process of its own, as Ray's actors are."""

import torch

from benchmarks.gpu.speed import bare_loop, config_of, rates
from benchmarks.gpu.step import Scale, emit, scale
from probe.concurrent import try_clients
from probe.recommendation import Needs, share_of_each
from probe.session import look_at_hardware
from task import pick_compute

AIM = 0.95  # of the bare loop


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
        required = trial.images_per_second >= AIM * bare if hardware.gpus and count > 1 else None
        emit(f"{count} clients at once / bare loop", trial.images_per_second / bare, ok=required,
             aim=f"at least {AIM}" if required is not None else "")  # fmt: skip
        emit(f"{count} clients at once: GPU memory together", trial.gpu / 2**30, "GiB")


def main() -> None:
    size, compute = scale(), pick_compute("auto", autotune=True)
    bare = rates(size, {"bare": bare_loop(size, compute)}, compute.device)["bare"]
    emit("bare loop", bare, "images/s")
    if compute.device.type == "cuda":
        torch.cuda.empty_cache()
    clients_at_once(size, bare)


if __name__ == "__main__":
    main()
