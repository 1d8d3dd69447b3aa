"""Enforces each client's share of its machine.

Ray only does the bookkeeping of GPU fractions: nothing stops a client from taking its neighbours' memory.
"""

import re
import sys
from functools import cache
from typing import Any

import torch

from config.run_config import ConfigError
from simulation.capacity import GIB, GPU_UNITS, Share

# What CUDA itself takes in each process, for its context and loaded kernels. PyTorch cannot limit it, so it is
# subtracted from what PyTorch may use.
CONTEXT_BYTES = GIB // 2
_held: list[Share] = []  # the fraction of a GPU that this process is limited to, if any


def assigned() -> Share | None:
    """What Ray gave this process as an actor; None if it is not one, but a real SuperNode or the driver."""
    ray: Any = sys.modules.get("ray")  # every Ray actor has imported it
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return None
    resources = ray.get_runtime_context().get_assigned_resources()
    return Share(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))


@cache
def hold_to_share() -> Share | None:
    """Limit this process to its share of the machine; once per process, before its first message."""
    share = assigned()
    if share is not None:
        hold_to(share)
    return share


def hold_to(share: Share) -> None:
    """Use as many threads as CPUs, and no more of a GPU's memory than the given fraction.

    Ray shows an actor only the GPUs that it was given, so the first one that CUDA sees is its own.

    Raises:
        ConfigError: The client was given no GPU but sees one, or CUDA itself would fill its fraction of one.
    """
    torch.set_num_threads(max(1, int(share.cpus)))
    if not torch.cuda.is_available():
        return
    if not share.gpus:
        raise ConfigError(
            "federation config: the client was given no GPU, but sees one, whose memory it would take from others; add"
            " client-resources-num-gpus, or unset RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO, which makes Ray leave GPUs"
            " visible."
        )
    if share.gpus < 1:
        total = gpu_bytes()
        if (most := int(share.gpus * total) - CONTEXT_BYTES) <= 0:
            raise ConfigError(
                f"federation config: 'client-resources-num-gpus' is {share.gpus:g}, which is"
                f" {share.gpus * total / GIB:.1f} GiB, and CUDA itself takes about {CONTEXT_BYTES / GIB:.1f}; it must"
                " be larger."
            )
        torch.cuda.set_per_process_memory_fraction(most / total, 0)
        _held.append(share)


def gpu_bytes() -> int:
    """Memory of the GPU that this process computes on."""
    return int(torch.cuda.get_device_properties(0).total_memory)


def free_gpu_bytes() -> int:
    """What is left of this process's share of the GPU, and not taken by others."""
    free, total = torch.cuda.mem_get_info(0)
    if not _held:
        return free
    return max(0, min(free, int(_held[-1].gpus * total) - CONTEXT_BYTES - torch.cuda.memory_allocated(0)))


def has_room(size: int, device: torch.device) -> bool:
    """Whether a visit's images, of so many bytes, may stay on the GPU: if they take at most half of what is free."""
    return device.type == "cuda" and size <= free_gpu_bytes() // 2


def out_of_memory(error: torch.OutOfMemoryError) -> str:
    """One sentence: what the client was given, what it had taken, and what to change."""
    tried = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    more = f"{tried[1]} more" if tried else f"more ({str(error).splitlines()[0]})"
    smaller = "a smaller 'batch-size' or 'image-size'"
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return f"the GPU has too little memory: it needed {more}; use {smaller}."
    total, taken = gpu_bytes() / GIB, torch.cuda.max_memory_reserved(0) / GIB
    if not _held:
        return (
            f"the GPU's {total:.1f} GiB is too little: it had taken {taken:.1f} GiB and needed {more}; use {smaller}."
        )
    gpus = _held[-1].gpus
    half_as_many = int(GPU_UNITS / ((int(1 / gpus) + 1) // 2)) / GPU_UNITS
    return (
        f"its {gpus:g} of a GPU, {gpus * total:.1f} of {total:.1f} GiB, is too little: besides about"
        f" {CONTEXT_BYTES / GIB:.1f} GiB for CUDA itself it had taken {taken:.1f} GiB and needed {more}; use"
        f" client-resources-num-gpus={half_as_many:g} in --federation-config, so that fewer clients share the GPU, or"
        f" {smaller}."
    )
