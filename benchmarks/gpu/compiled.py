"""`compile = true` compared with the plain model; not part of `speed`, because compiling takes longer."""

import torch

from benchmarks.gpu.speed import config_of, rates
from benchmarks.gpu.step import emit, scale, seconds
from benchmarks.tools.our_loop import our_visit
from task import pick_compute


def main() -> None:
    if not torch.cuda.is_available():
        emit("compile", "needs a GPU")
        return
    size, compute = scale(), pick_compute("auto", autotune=True)
    compiled = our_visit(config_of(size, compile=True), compute, size.steps)
    emit("first epoch with compile", seconds(compiled, compute.device), "s")
    contenders = {"plain": our_visit(config_of(size), compute, size.steps), "compiled": compiled}
    found = rates(size, contenders, compute.device)
    for name, rate in found.items():
        emit(f"visit, {name}", rate, "images/s")
    emit("compiled / plain", found["compiled"] / found["plain"])


if __name__ == "__main__":
    main()
