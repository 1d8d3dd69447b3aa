"""Does the runs of the methods' table: through `flwr run`, or each in a process of its own without Flower's and Ray's.

Both give the same accuracies, and add each row to the results file when its run ends. Runs write below ``runs/`` beside
that file, so that one that was stopped resumes where it was.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.methods.data import release_of
from benchmarks.methods.rows import Row, append
from benchmarks.methods.settings import MATRIX, SETTINGS, config_of, mark_of, release_name, transition_of
from benchmarks.tools.processes import Deployment, deployment, pairs
from benchmarks.tools.report import Stopwatch
from config.run_config import Value
from data.user_cache import cache_folder

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 3600
Key = tuple[str, str, int]  # setting, row, seed


@dataclass(frozen=True)
class Planned:
    """A run that is missing.

    Attributes:
        key: Which row.
        what: The same for people.
        config: All keys of the run.
    """

    key: Key
    what: str
    config: dict[str, Value]

    @property
    def folder(self) -> Path:
        return Path(str(self.config["output-dir"]), str(self.config["run-name"]))

    def row(self, seconds: float) -> Row:
        """What the run's folder holds, in the end."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        accuracy = [round(100 * json.loads(line)["test-accuracy"], 3) for line in lines]
        return Row(*self.key, mark_of(*self.key[:2]), accuracy, round(seconds, 1))


def plan(wanted: Sequence[Key], results: Path) -> list[Planned]:
    """Draw or import what the runs need, and write down their configs."""
    runs = results.parent / "runs"
    planned = []
    for number, (setting, method, seed) in enumerate(wanted, 1):
        config = {
            **placed(setting, method, seed, runs),
            "output-dir": str(runs), "run-name": f"{setting}-{method}-{seed}-{mark_of(setting, method)}",
            "resume": "auto",
        }  # fmt: skip
        what = f"{number} of {len(wanted)}: {setting}, {method}, seed {seed}"
        planned.append(Planned((setting, method, seed), what, config))
    return planned


def placed(setting: str, method: str, seed: int, folder: Path) -> dict[str, Value]:
    """A run's config with its data, and with its transition matrix, which is written into `folder` if it is needed."""
    config = config_of(setting, method, seed)
    folder.mkdir(parents=True, exist_ok=True)
    config["data-dir"] = str(release_of(release_name(setting, method), cache_folder("benchmarks")))
    if MATRIX in str(config["method-args"]):
        matrix = SETTINGS[setting].transition
        if matrix != "clothing1m":
            path = folder / f"transition-{setting}.txt"
            np.savetxt(path, transition_of(setting))
            matrix = str(path)
        config["method-args"] = str(config["method-args"]).replace(MATRIX, matrix)
    return config


def keep(results: Path, planned: Planned, seconds: float) -> None:
    """Add the row of a run that is complete; only small files stay in its folder."""
    row = planned.row(seconds)
    append(results, row)
    for large in ("checkpoints", "state"):
        shutil.rmtree(planned.folder / large, ignore_errors=True)
    (planned.folder / "model.safetensors").unlink(missing_ok=True)
    print(f"{planned.what}: {row.result:.1f} % in {seconds:.0f} s", file=sys.stderr, flush=True)


def _fail(failed: list[str], planned: Planned, why: object) -> None:
    failed.append(f"{planned.what}: {why}")
    print(failed[-1], file=sys.stderr, flush=True)


def through_flower(results: Path, wanted: Sequence[Key], at_once: int) -> list[str]:
    """Do the runs through `flwr run`, one actor each; return the failures, each with its log.

    Two runs of one actor finish sooner than one of two: while one starts, the other trains. Each server evaluates on
    one thread, or the threads of both would wait for each other.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    failed: list[str] = []
    waiting = plan(wanted, results)

    def work(home: Path) -> None:
        with deployment(home, [], {}) as started:
            while waiting:
                planned = waiting.pop(0)
                try:
                    with Stopwatch() as watch:
                        _flwr_run(started, planned)
                except RuntimeError as error:
                    _fail(failed, planned, error)
                else:
                    keep(results, planned, watch.seconds)

    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, [Path(temporary) / f"home-{number}" for number in range(min(at_once, len(waiting)))]))
    return failed


def _flwr_run(started: Deployment, planned: Planned) -> None:
    clients = SETTINGS[planned.key[0]].clients
    federation = f"num-supernodes={clients} client-resources-num-cpus=1 init-args-num-cpus=1"
    started.run(ROOT, "--federation-config", federation, "-c", pairs(planned.config), timeout=RUN_SECONDS)


def in_processes(results: Path, wanted: Sequence[Key], at_once: int) -> list[str]:
    """Do the runs in processes of one thread on the CPU, `at_once` at a time; return the failures.

    However this process ends, the others end as well.
    """
    failed: list[str] = []
    waiting, running = plan(wanted, results), list[_Process]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_Process(waiting.pop(0)))
            for process in [one for one in running if one.ended]:
                running.remove(process)
                if why := process.failure():
                    _fail(failed, process.planned, why)
                else:
                    keep(results, process.planned, process.seconds)
            time.sleep(0.05)
    finally:
        for process in running:
            process.stop()
    return failed


def command_of(planned: Planned) -> list[str]:
    arguments = [str(SETTINGS[planned.key[0]].clients), json.dumps(planned.config)]
    return [sys.executable, "-m", "benchmarks.methods.alone", *arguments]


class _Process:
    """A run in a process of its own, which writes ``<run-name>.log`` beside its folder."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self._log = planned.folder.with_suffix(".log")
        self._started = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command_of(planned), cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
            )  # fmt: skip

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def failure(self) -> str:
        """The end of its log; empty if the run is complete."""
        self._close()
        if self._process.returncode == 0:
            self._log.unlink()
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"exit status {self._process.returncode}; the end of {self._log}:", *lines[-3:]])

    def stop(self) -> None:
        self._process.kill()  # what it writes is whole or absent
        self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
