"""One `flwr run` of the `notebook` preset on this machine: does it work, and what do Flower and Ray add to training?

On a GPU eight clients train in each round, four at a time on a quarter of it, then two at a time on half of it; the
images are drawn, packed, 224 pixels. A round trains as many steps as the bare loop that is timed before it.
"""

import json
import os
import re
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.data.repeated import write_repeated
from benchmarks.gpu.speed import bare_loop, rates
from benchmarks.gpu.step import Scale, emit, scale
from benchmarks.tools.processes import deployment, pairs
from task import pick_compute

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 1200


def bare_rate(size: Scale) -> float:
    compute = pick_compute("auto", autotune=True)
    rate = rates(replace(size, repeats=1), {"bare": bare_loop(size, compute)}, compute.device)["bare"]
    if compute.device.type == "cuda":
        torch.cuda.empty_cache()
    return rate


def one_run(size: Scale, clients: int, at_once: int, rounds: int, folder: Path, bare: float) -> None:
    on_gpu = torch.cuda.is_available()
    write_repeated(folder / "release.pack", clients * size.images, size.image_size)
    config: dict[str, Any] = {
        "preset": "notebook", "pretrained": "none", "data-dir": folder / "release.pack", "output-dir": folder,
        "run-name": "run", "cache-dir": folder / "cache", "num-server-rounds": rounds, "fraction-train": 1.0,
        "val-split": "none", "local-epochs": 2, "model": size.model, "image-size": size.image_size,
        "batch-size": size.batch_size,
    }  # fmt: skip
    cpus = max(1, len(os.sched_getaffinity(0)) // (2 * at_once))
    gpus = f" client-resources-num-gpus={1 / at_once:g}" if on_gpu else ""
    federation = f"num-supernodes={clients} client-resources-num-cpus={cpus}{gpus}"
    begun = time.time()
    with deployment(folder / "home", [], {}) as started:
        log = started.run(ROOT, "--federation-config", federation, "-c", pairs(config), timeout=RUN_SECONDS)
    what = f"flwr run, {clients} clients, {at_once} at once"
    for line in re.findall(r"(?:Machine|Clients) {2,}.*|.*(?:WARNING|idle).*", log):
        emit(f"{what}: log", line.strip())
    entries = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    failed = [entry["failed-partitions"] for entry in entries if entry["failed-partitions"]]
    emit(f"{what}: rounds", len(entries), ok=len(entries) == rounds and not failed, aim=f"{rounds}, all replies")
    emit(f"{what}: all of it", time.time() - begun, "s")
    emit(f"{what}: first round", entries[0]["seconds"], "s")
    later = entries[1:] or entries
    # Clients train while the server evaluates, so no round has its time for itself; all later ones together have.
    passed = later[0]["overlap-seconds"] + sum(entry["seconds"] for entry in later)
    rate = sum(entry["images-seen"] for entry in later) / passed
    emit(f"{what}: later rounds, their evaluation included, each", passed / len(later), "s")
    training = statistics.median(entry["exchange-seconds"] for entry in later)
    emit(f"{what}: of that, from the first message to the new model", training, "s")
    emit(f"{what}: images trained a second of later rounds", rate, "images/s")
    emit(f"{what}: of the bare loop", rate / bare)
    emit(f"{what}: losses", str([round(entry["train-loss"], 3) for entry in entries]))


def main() -> None:
    size = scale()
    bare = bare_rate(size)
    emit("bare loop", bare, "images/s")
    plans = ((8, 4, 3), (8, 2, 3)) if torch.cuda.is_available() else ((2, 2, 1),)
    for clients, at_once, rounds in plans:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                one_run(size, clients, at_once, rounds, Path(temporary), bare)
            except (RuntimeError, TimeoutError) as error:
                emit(f"flwr run, {clients} clients, {at_once} at once", str(error)[-3000:], ok=False)


if __name__ == "__main__":
    main()
