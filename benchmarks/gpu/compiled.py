"""`compile = true` next to the plain model; apart from `speed`, because compiling takes longer than all of that."""

import time

import torch

from benchmarks.gpu.speed import config_of, rates, visit
from benchmarks.gpu.step import emit, scale
from task import pick_compute


def main() -> None:
    if not torch.cuda.is_available():
        emit("compile", "needs a GPU")
        return
    size, compute = scale(), pick_compute("auto", autotune=True)
    compiled = visit(size, compute, config_of(size, compile=True))
    start = time.perf_counter()
    compiled()
    emit("first epoch with compile", time.perf_counter() - start, "s")
    contenders = {"plain": visit(size, compute, config_of(size)), "compiled": compiled}
    found = rates(size, contenders, compute.device)
    for name, rate in found.items():
        emit(f"visit, {name}", rate, "images/s")
    emit("compiled / plain", found["compiled"] / found["plain"])


if __name__ == "__main__":
    main()
