"""The same federated job in several frameworks, in one run: seconds a round, start-up and memory.

    python -m benchmarks.peers [--contender bare --contender ours] [--model resnet50] [--repeats 3] [--rounds 3]
                               [--environments DIR] [--interpreter blazefl=/usr/bin/python3.13]

FedAvg over 10 clients, 4 a round, one local epoch, SGD with the same batch size, learning rate, momentum and weight
decay, from the same initial weights, on the same drawn images of the same clients. After each round the global model is
tested on the same images; a round lasts from one tested global model to the next. All run on the CPU, in fp32 and
PyTorch's default layout unless stated otherwise, and get decoded pixels in `.npz` files; ours reads image files.

- bare, bare-fast: a plain loop in one process, and the same in channels-last bf16 autocast.
- flower: Flower's own `FedAvg.start()` and a plain ClientApp through `flwr run`, 2 actors.
- pfl, pfl-distributed: apple/pfl-research in one process, and in 2.
- fluke, blazefl: the frameworks of these names.
- ours, ours-fp32: this app through `flwr run` with its defaults, 2 actors, and with `precision = "fp32"`.

Contenders take turns; each repeat is a separate process tree. Seconds of a round are medians over all rounds but the
first and all repeats; start-up is the time from the start of the process to the end of its first round, minus a typical
round. Memory is the peak of the summed proportional set sizes of all processes of a run, sampled twice a second. The
benchmark ends if a contender took another number of SGD steps than the job has, or used another version of PyTorch.

Nothing else needs pfl, fluke and BlazeFL: each is installed into its own virtual environment below `--environments`,
with the versions pinned in `requirements-*.txt`, when it is first measured. BlazeFL needs Python 3.12; with an older
one it takes part once `--interpreter` names another for it.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.peers.environments import available, python_of
from benchmarks.peers.job import Job
from benchmarks.peers.ours import SEED
from benchmarks.tools.command import run_command
from benchmarks.tools.dealt import draw_dealt
from benchmarks.tools.memory import PeakMemory, marked
from benchmarks.tools.report import report
from data.images.decoded_cache import GIB, DecodedCache
from data.options import folder_to_write
from data.user_cache import cache_folder
from task import derived_seed

ROOT = Path(__file__).parents[2]
TEST_IMAGES = 56
CLASSES = 14
RUN_SECONDS = 1800
STOP_SECONDS = 30
IDLE_LOAD = 0.5  # threads that spin while they wait for each other lose most to other work
MARK = "CLOTHING1M_FL_PEERS"  # a variable of all processes of one run
PACKAGES = ("flwr", "ray", "torch", "torchvision", "numpy")
COLUMNS = (
    "", "version", "round, s", "least to most", "x bare", "start-up, s", "peak, MiB", "steps", "accuracy, %",
)  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A module that does the job, and further arguments of its command line.

    Attributes:
        framework: Whose environment runs it; the running one, if empty.
    """

    module: str
    arguments: tuple[str, ...] = ()
    framework: str = ""


CONTENDERS = {
    "bare": Contender("bare"),
    "bare-fast": Contender("bare", ("--fast",)),
    "flower": Contender("with_flower"),
    "pfl": Contender("with_pfl", framework="pfl"),
    "pfl-distributed": Contender("with_pfl", ("--distributed",), "pfl"),
    "fluke": Contender("with_fluke", framework="fluke"),
    "blazefl": Contender("with_blazefl", framework="blazefl"),
    "ours": Contender("ours"),
    "ours-fp32": Contender("ours", ("--fp32",)),
}


@dataclass(frozen=True)
class Run:
    """One contender's run.

    Attributes:
        rounds: Seconds of each round but the first.
        start_up: Seconds until the first round was done, less the median of `rounds`.
        peak: Bytes.
        steps: Of SGD, all clients and rounds together.
        accuracy: Of the last global model, 0 to 1.
        version: Of the framework.
        torch: Version of PyTorch.
    """

    rounds: list[float]
    start_up: float
    peak: int
    steps: int
    accuracy: float
    version: str
    torch: str


def draw(folder: Path, clients: int, images: int, image_size: int) -> None:
    """The sample in the released layout, and the same pixels, dealt the same way as ours, for everybody else."""
    release, splits = draw_dealt(folder / "release", clients, images, image_size, TEST_IMAGES, SEED)
    decoded = DecodedCache(folder / "decoded", GIB)
    for name, split in splits.items():
        pixels = decoded.images(release, split.keys, image_size)
        np.savez(folder / f"{name}.npz", images=pixels, labels=split.labels.astype(np.int64))


def cohorts_of(rounds: int, sampled: int, clients: int) -> tuple[tuple[int, ...], ...]:
    """Clients of each round, without one twice in a round."""
    rng = np.random.default_rng([SEED, clients])
    return tuple(tuple(rng.choice(clients, sampled, replace=False).tolist()) for _ in range(rounds))


def measure(contender: Contender, job: Job, python: str, folder: Path) -> Run:
    """One run, below `folder`.

    Raises:
        RuntimeError: It failed, took too long, or did another number of rounds; with the end of what it printed.
    """
    folder.mkdir()
    job_file, result, log = folder / "job.json", folder / "result.json", folder / "log"
    job.write(job_file)
    steps = Path(job.folder) / "steps"
    steps.write_bytes(b"")
    mark = f"{MARK}={uuid.uuid4().hex}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", MARK: mark.split("=")[1]}
    command = [python, "-m", f"benchmarks.peers.{contender.module}", str(job_file), str(result), *contender.arguments]
    with log.open("wb") as output, PeakMemory(partial(marked, mark)) as memory:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
        try:
            failed = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            failed = -1
        finally:
            _end(process, mark)
    values = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {"rounds": []}
    if failed or len(values["rounds"]) != len(job.cohorts):
        why = "did not end" if failed == -1 else f"failed after {len(values['rounds'])} of {len(job.cohorts)} rounds"
        tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise RuntimeError(f"{' '.join(command)} {why}:\n{tail}")
    return run_of(values, started, memory.peak, steps.stat().st_size)


def run_of(values: Mapping[str, Any], started: float, peak: int, steps: int) -> Run:
    """What a contender's report says, with what was measured from outside."""
    ends = [entry["end"] for entry in values["rounds"]]
    rounds = np.diff(ends).tolist()
    start_up = ends[0] - started - statistics.median(rounds)
    return Run(rounds, start_up, peak, steps, values["rounds"][-1]["accuracy"], values["version"], values["torch"])


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """Let a contender that still runs end its own processes first; kill those that are left by their ids."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for left in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def check(name: str, run: Run, job: Job, torch_version: str) -> None:
    """Refuse a run that was another job.

    Raises:
        RuntimeError: The number of SGD steps or the version of PyTorch is another.
    """
    if run.steps != job.steps:
        raise RuntimeError(f"'{name}' took {run.steps} SGD steps; it must be {job.steps}, as the job has.")
    if run.torch != torch_version:
        raise RuntimeError(
            f"'{name}' computed with torch {run.torch}; it must be {torch_version}, as this process has."
        )


def row(runs: list[Run], bare: list[Run] | None) -> list[float | int | str]:
    """One row of the table without its name: medians over repeats, and over all rounds of all of them."""

    def seconds(of: list[Run]) -> list[float]:
        return [one for run in of for one in run.rounds]

    typical = statistics.median(seconds(runs))
    return [
        runs[0].version,
        typical,
        f"{min(seconds(runs)):.1f} to {max(seconds(runs)):.1f}",
        f"{typical / statistics.median(seconds(bare)):.2f}" if bare else "",
        statistics.median(run.start_up for run in runs),
        round(statistics.median(run.peak for run in runs) / 2**20),
        runs[0].steps,
        100 * statistics.median(run.accuracy for run in runs),
    ]


def chosen(names: list[str] | None, interpreters: Mapping[str, str]) -> list[str]:
    """The contenders to measure: all that there is a Python for, or those that were named.

    Raises:
        typer.BadParameter: An unknown name.
    """
    for name in names or []:
        if name not in CONTENDERS:
            raise typer.BadParameter(f"there is no contender '{name}'; it must be one of {', '.join(CONTENDERS)}.")
    if names:
        return names
    able = [name for name, one in CONTENDERS.items() if not one.framework or available(one.framework, interpreters)]
    for name in CONTENDERS.keys() - set(able):
        print(f"left out: {name}, which needs a newer Python (--interpreter)", file=sys.stderr)
    return able


def main(
    contender: Annotated[list[str] | None, typer.Option(help="May be repeated; all by default.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="resnet18, resnet34 or resnet50; may be repeated.")] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each contender.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of each run; the first is reported separately.")] = 3,
    clients: Annotated[int, typer.Option(help="Clients in all.")] = 10,
    sampled: Annotated[int, typer.Option(help="Clients in a round.")] = 4,
    images: Annotated[int, typer.Option(help="Images of each client.")] = 64,
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 16,
    environments: Annotated[
        Path | None,
        typer.Option(help="Folder of their environments; by default in the cache folder.", callback=folder_to_write),
    ] = None,
    interpreter: Annotated[list[str] | None, typer.Option(help="FRAMEWORK=PYTHON; may be repeated.")] = None,
) -> None:
    models = model or ["resnet18", "resnet50"]
    interpreters = dict(one.split("=", 1) for one in interpreter or [])
    names = chosen(contender, interpreters)
    place = (environments or cache_folder("peers")).absolute()
    pythons = {one: str(python_of(one, place, interpreters)) for name in names if (one := CONTENDERS[name].framework)}
    if (load := os.getloadavg()[0]) > IDLE_LOAD:
        print(f"other work is running (load {load:.1f}), which slows contenders unequally", file=sys.stderr)
    runs: dict[tuple[str, str], list[Run]] = {(one, name): [] for one in models for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jobs = {
            one: Job(
                str(folder), one, CLASSES, derived_seed(SEED, "initial weights"), clients,
                cohorts_of(rounds, sampled, clients), images, image_size, batch_size,
            )
            for one in models
        }  # fmt: skip
        draw(folder, clients, images, image_size)
        for repeat in range(repeats):
            for (one, name), measured in runs.items():
                how = CONTENDERS[name]
                python = pythons.get(how.framework, sys.executable)
                run = measure(how, jobs[one], python, folder / f"{one}-{name}-{repeat}")
                check(name, run, jobs[one], version("torch"))
                measured.append(run)
                took = " ".join(f"{seconds:.1f}" for seconds in run.rounds)
                print(f"run {repeat + 1} of {repeats}, {one}, {name}: {took} s", file=sys.stderr, flush=True)
    for one in models:
        rows = [(name, *row(runs[one, name], runs.get((one, "bare")))) for name in names]
        title = f"{one}, {sampled} of {clients} clients a round, {images} images each of {image_size} pixels"
        report(title, COLUMNS, rows, PACKAGES)


if __name__ == "__main__":
    run_command(main, __doc__)
