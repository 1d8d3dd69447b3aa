"""Flower alone: `FedAvg.start()` and a plain ClientApp, run by `flwr run` on a SuperLink that simulates.

The job's workers are Ray actors, each with its share of the cores. Flower samples the clients.
"""

import os
import sys
from pathlib import Path

from benchmarks.peers.job import Job
from benchmarks.tools.processes import deployment, pairs

APP = Path(__file__).parent / "flower_app"
RUN_SECONDS = 1800


def federation(job: Job) -> str:
    """As ``--federation-config`` takes it."""
    return f"num-supernodes={job.clients} client-resources-num-cpus={job.threads}"


def main(job_file: str, result: str) -> None:
    job = Job.read(job_file)
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # Flower's bundle of the app is without `job`
    with deployment(Path(result).parent / "home", [], {}) as started:
        config = pairs({"job": job_file, "result": result})
        started.run(APP, "--federation-config", federation(job), "-c", config, timeout=RUN_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
