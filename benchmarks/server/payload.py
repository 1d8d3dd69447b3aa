"""Whether half-precision payloads cost accuracy, on the synthetic sample.

    python -m benchmarks.server.payload [--seed 1 --seed 2 --seed 3] [--model resnet18] [--rounds 14]

The README's first run with another architecture: 10 simulated clients, 2 a round, which send and receive models as they
would over a network. Each row is a payload; accuracies are on the sample's clean test, means of the last five rounds.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.processes import deployment, pairs
from benchmarks.tools.report import report
from messages.payload import PAYLOADS

ROOT = Path(__file__).parents[2]
FEDERATION = "num-supernodes=10 client-resources-num-cpus=1"
LAST = 5  # rounds
RUN_SECONDS = 1800
PACKAGES = ("flwr", "ray", "torch", "numpy")


def accuracy(run_dir: Path) -> float:
    """Mean test accuracy of the last rounds, in percent."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return 100 * statistics.fmean(json.loads(line)["test-accuracy"] for line in lines[-LAST:])


def main(
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    model: Annotated[str, typer.Option(help="resnet18, resnet34 or resnet50.")] = "resnet18",
    rounds: Annotated[int, typer.Option(help="Rounds of each run.")] = 14,
) -> None:
    seeds = seed or [1, 2, 3]
    found: dict[str, list[float]] = {kind: [] for kind in PAYLOADS}
    with tempfile.TemporaryDirectory() as temporary, deployment(Path(temporary) / "home", [], {}) as started:
        for one in seeds:
            for kind, values in found.items():
                name = f"{kind}-{one}"
                config = {
                    "seed": one, "payload": kind, "model": model, "num-server-rounds": rounds,
                    "output-dir": temporary, "run-name": name,
                }  # fmt: skip
                started.run(ROOT, "--federation-config", FEDERATION, "-c", pairs(config), timeout=RUN_SECONDS)
                values.append(accuracy(Path(temporary) / name))
                print(f"seed {one}, {kind}: {values[-1]:.1f} %", file=sys.stderr, flush=True)
    columns = ("payload", *(f"seed {one}, %" for one in seeds), "mean, %", "mean - fp32's, points")
    base = statistics.fmean(found["fp32"])
    rows = []
    for kind, values in found.items():
        mean = statistics.fmean(values)
        rows.append((kind, *values, mean, f"{mean - base:+.1f}"))
    report(f"accuracy by payload: {model}, {rounds} rounds", columns, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
