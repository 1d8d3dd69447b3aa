"""This app with its defaults, run by `flwr run` on a SuperLink that simulates; ``--fp32`` changes its precision alone.

It reads the same images as files, and decodes them once, in the first round. Roll call, checks of every reply,
checkpoints and metrics files are part of what it does.
"""

import json
import os
import sys
from pathlib import Path

from benchmarks.peers.job import Job, Report
from benchmarks.peers.with_flower import RUN_SECONDS, federation
from benchmarks.tools.processes import arrivals, deployment, pairs

APP = Path(__file__).parents[2]
SEED = 1  # also of the deal and of the initial weights that the other contenders get


def steps_of(line: dict[str, int], batch_size: int) -> int:
    """SGD steps of a round, from what its line in `metrics.jsonl` says.

    Raises:
        ValueError: The images that went through a step are no whole number of batches.
    """
    steps, rest = divmod(line["images-seen"], batch_size)
    if rest:
        raise ValueError(f"{line['images-seen']} images went through a step, which is no multiple of {batch_size}.")
    return steps


def main(job: Job, result: str, precision: str) -> None:
    folder = Path(result).parent
    os.environ.pop("PYTHONPATH", None)  # the app comes from its bundle
    config = {
        "data-dir": Path(job.folder) / "release", "cache-dir": folder / "cache",
        "output-dir": folder, "run-name": "run",
        "num-server-rounds": len(job.cohorts), "fraction-train": job.sampled / job.clients, "val-split": "none",
        "seed": SEED, "model": job.model, "image-size": job.image_size, "stem": "imagenet",
        "batch-size": job.batch_size, "local-epochs": 1, "learning-rate": job.learning_rate, "momentum": job.momentum,
        "weight-decay": job.weight_decay, "precision": precision,
    }  # fmt: skip
    report = Report("flwr")
    with (
        deployment(folder / "home", [], {}) as started,
        arrivals(folder / "run" / "metrics.jsonl") as lines,
    ):
        started.run(APP, "--federation-config", federation(job), "-c", pairs(config), timeout=RUN_SECONDS)
    with (Path(job.folder) / "steps").open("ab") as steps:
        for when, text in lines:
            line = json.loads(text)
            report.round_done(line["test-accuracy"], when)
            steps.write(b"+" * steps_of(line, job.batch_size))
    report.write(result)


if __name__ == "__main__":
    main(Job.read(sys.argv[1]), sys.argv[2], "fp32" if "--fp32" in sys.argv else "auto")
