"""What a client's process costs before it trains, and what its reply does: this checkout beside others of this app.

    python -m benchmarks.client.start [--checkout ~/older] [--repeats 3]

Each repeat imports the ClientApp of each checkout in a process of its own, in turn, and then makes a ResNet-50's reply,
as a simulation carries it and packed for real nodes. CPU time, since seconds would also count what else the machine
does; memory right after the imports, where PSS divides a page among those that map it. Medians.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.tools.command import run_command
from benchmarks.tools.report import report

ROOT = Path(__file__).parents[2]
PACKAGES = ("flwr", "torch", "torchvision", "numpy")
COLUMNS = ("", "import, CPU s", "modules", "RSS, MiB", "PSS, MiB", "reply, CPU ms", "packed, CPU ms")
# What is called here has had these names since version 0.2.
CHILD = """
import json, statistics, sys, time
import client_app.app
import_seconds, modules = time.process_time(), len(sys.modules)
with open("/proc/self/smaps_rollup") as file:
    kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith(("Rss", "Pss:"))}
import torch
from flwr.app import Array, ArrayRecord
from client_app import model_transport
from learning.allocator import keep_freed_memory
from messages.payload import pack
from task import build_model

torch.set_num_threads(1)
keep_freed_memory()
model = build_model("resnet50", 14, seed=1)
arrays = {name: value.numpy() for name, value in model.state_dict().items()}
def reply(sent):
    took = []
    for _ in range(9):
        began = time.process_time()
        model_transport.answer(model_transport.state_of(model), sent, "fp32")
        took.append(1000 * (time.process_time() - began))
    return statistics.median(took)
plain = reply(ArrayRecord({name: Array(value) for name, value in arrays.items()}))
print(json.dumps([import_seconds, modules, kib["Rss"] / 1024, kib["Pss"] / 1024, plain, reply(pack(arrays, "fp32"))]))
"""


def measure(checkout: Path) -> list[float]:
    """One process's numbers, in the order of `COLUMNS`."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the ClientApp of {checkout} cannot be measured:\n{done.stderr}")
    numbers: list[float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def main(
    checkout: Annotated[
        list[Path] | None,
        typer.Option(help="Another checkout of this app; may be repeated.", exists=True, file_okay=False),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Processes of each.", min=1)] = 3,
) -> None:
    runs: dict[Path, list[list[float]]] = {path.resolve(): [] for path in [ROOT, *(checkout or [])]}
    for _ in range(repeats):
        for path, measured in runs.items():
            measured.append(measure(path))
    rows = [
        (path.name, *(statistics.median(values) for values in zip(*measured, strict=True)))
        for path, measured in runs.items()
    ]
    report("a client's process before it trains, and the reply of a ResNet-50", COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
