"""Flower alone: `FedAvg.start()` and a plain ClientApp, run by `flwr run` on a SuperLink that simulates.

The job's workers are Ray actors, each with its share of the cores. Flower samples the clients.
"""

import json
import sys
from pathlib import Path

from benchmarks.peers.job import Job, Report
from benchmarks.tools.processes import deployment, pairs

APP = Path(__file__).parents[1] / "tools" / "plain_app"
RUN_SECONDS = 1800


def federation(job: Job) -> str:
    """As ``--federation-config`` takes it."""
    return f"num-supernodes={job.clients} client-resources-num-cpus={job.threads}"


def main(job: Job, result: str) -> None:
    measured, report = Path(result).parent / "rounds.json", Report("flwr")
    config = {
        "data": job.folder, "report": measured, "model": job.model, "num-classes": job.classes,
        "seed": job.weights_seed, "num-server-rounds": len(job.cohorts), "fraction-train": job.sampled / job.clients,
        "image-size": job.image_size, "batch-size": job.batch_size, "local-epochs": 1,
        "learning-rate": job.learning_rate, "momentum": job.momentum, "weight-decay": job.weight_decay,
    }  # fmt: skip
    with deployment(Path(result).parent / "home", [], {}) as started:
        started.run(APP, "--federation-config", federation(job), "-c", pairs(config), timeout=RUN_SECONDS)
    with (Path(job.folder) / "steps").open("ab") as steps:
        for entry in json.loads(measured.read_text(encoding="utf-8")):
            report.round_done(entry["accuracy"], entry["end"])
            steps.write(b"+" * entry["steps"])
    report.write(result)


if __name__ == "__main__":
    main(Job.read(sys.argv[1]), sys.argv[2])
