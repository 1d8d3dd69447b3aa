"""Where the seconds of a client's training go, by kind of operation.

    python -m benchmarks.client.profile [-c "image-size=224 batch-size=64"] [--steps 3] [--threads 1]

The app's own training loop on random images, after a warm-up, under `torch.profiler`: self times of PyTorch's
operations, so that each moment counts once. The profiler's own time is spread over all of them.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated

import torch
import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.our_loop import our_visit
from benchmarks.tools.report import report
from learning.allocator import keep_freed_memory
from probe.arguments import Config
from probe.session import read_config
from task import pick_compute

PACKAGES = ("torch", "torchvision")
# Operations by the beginning of their names; the first matching kind takes them.
KINDS = {
    "convolution, backward": ("aten::convolution_backward", "ConvolutionBackward"),
    "convolution, forward": ("aten::mkldnn_convolution", "aten::convolution", "aten::_convolution", "aten::cudnn"),
    "BatchNorm, backward": ("aten::native_batch_norm_backward", "aten::cudnn_batch_norm_backward", "NativeBatchNorm"),
    "BatchNorm, forward": ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::batch_norm"),
    "ReLU, both ways": ("aten::clamp_min", "aten::relu", "aten::threshold_backward", "ReluBackward"),
    "sums of residual blocks": ("aten::add", "AddBackward"),
    "casts of weights and gradients": ("aten::copy_", "aten::to", "aten::_to_copy", "ToCopyBackward"),
    "SGD": ("aten::_fused_sgd", "Optimizer"),
    "pooling and last layer": ("aten::max_pool", "aten::mean", "aten::addmm", "aten::mm", "MaxPool", "MeanBackward"),
}


def by_kind(times: Mapping[str, float]) -> list[tuple[str, float]]:
    """Seconds of operations, by name, as seconds of kinds, the longest first."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, seconds in times.items():
        name = name.removeprefix("autograd::engine::evaluate_function: ")
        kind = next((kind for kind, starts in KINDS.items() if name.startswith(starts)), "all else")
        found[kind] += seconds
    return sorted(found.items(), key=lambda item: -item[1])


def main(
    config: Config = None,
    steps: Annotated[int, typer.Option(help="Steps to profile.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
) -> None:
    torch.set_num_threads(threads)
    run = read_config(config or [])
    compute = pick_compute(run.precision, run.autotune)
    if compute.device.type == "cpu":
        keep_freed_memory()
    train = our_visit(run, compute, steps, on_device=False)
    train()
    plain = train().seconds
    with torch.profiler.profile() as profile:
        train()
    on_gpu = compute.device.type == "cuda"
    times = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        for event in profile.key_averages()
    }
    total = sum(times.values())
    rows = [(kind, 1000 * seconds / steps, f"{seconds / total:.1%}") for kind, seconds in by_kind(times)]
    rows.append(("all, without the profiler", 1000 * plain / steps, f"{steps * run.batch_size / plain:.1f} images/s"))
    title = f"one step: {run.model}, {run.image_size} pixels, batches of {run.batch_size}, {compute}, {threads} threads"
    report(title, ("", "ms a step", "share"), rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
