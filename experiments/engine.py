"""Does rows, some at a time, each through `flwr run`, until all are complete or have failed.

Side by side run as many rows as have cores: each takes ``init-args-num-cpus`` of its federation, or all. `jobs` sets
another number. Memory has the last word: the first row runs alone until it has trained a round, and each further one
starts only while more is free than 1.2 times what any row has taken so far. Nothing watches the memory of GPUs: each
row's Ray believes that it owns them, so with N rows at a time on one GPU ``client-resources-num-gpus`` must be N times
as large as for a row alone.

Numbers do not depend on `jobs`. How many threads add up does change last digits, so each server computes with as many
threads (``OMP_NUM_THREADS``) as its row has cores, whatever runs beside it; clients use ``client-resources-num-cpus``.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from experiments.attempt import HOME, FlowerLink, Link, Outcome
from experiments.display import Counts, Progress, Screen, name_of
from experiments.errors import ExperimentError
from experiments.estimate import rounds_of
from experiments.memory import Usage, has_room
from experiments.plan import Experiment, Row, save
from runs.removing import LARGE
from simulation.capacity import memory_bytes

STARTS = 3  # of a row that is cut off
CORES = "init-args-num-cpus"
LOOK_SECONDS = 0.5
MEMORY_SECONDS = 2.0  # between two looks at the memory of all processes, which takes some milliseconds for each
ENDING_SECONDS = 12.0  # Flower gives a simulation five


def run_rows(experiment: Experiment, rows: Sequence[Row], jobs: int | None) -> dict[str, str]:
    """Do these rows, and resume those that were begun.

    Args:
        experiment: Theirs; its `failures` are kept up to date, on disk as well.
        rows: In this order.
        jobs: At most so many at a time; None: as many as have cores.

    Returns:
        The reason by row name of those that failed.

    Raises:
        ExperimentError: Flower's SuperLink does not start.
        SystemExit: Ctrl-C, SIGTERM or SIGHUP, with the status 128 and the signal's number. What runs has been ended.
    """
    every = experiment.plan.rows
    at_once = jobs or side_by_side(every)
    set_cores = [cores_of(row) for row in every if CORES in row.federation]
    threads = min(set_cores, default=None)
    shutil.rmtree(experiment.folder / HOME, ignore_errors=True)  # of a start that was killed
    scheduler = Scheduler(experiment, rows, at_once, lambda: FlowerLink(experiment, threads))
    with _signals(scheduler.stop) as caught:
        failures = scheduler.run()
    shutil.rmtree(experiment.folder / HOME, ignore_errors=True)
    if caught:
        print(_how_to_go_on(scheduler.counts), file=sys.stderr)
        raise SystemExit(128 + caught[0])
    return failures


def side_by_side(rows: Sequence[Row]) -> int:
    """How many of these have cores at a time, unless `jobs` says otherwise."""
    return max(1, len(os.sched_getaffinity(0)) // max(map(cores_of, rows), default=1))


def cores_of(row: Row) -> int:
    """How many cores a row's simulation takes: what its federation says, or all."""
    return int(row.federation.get(CORES) or len(os.sched_getaffinity(0)))


class Scheduler:
    """Starts rows, and starts them again if they are cut off; each is watched by a thread of its own.

    Attributes:
        stop: Set to end what runs; what waits is not started.
        counts: How far it is.
    """

    def __init__(
        self, experiment: Experiment, rows: Sequence[Row], at_once: int, start_link: Callable[[], Link],
        screen: Screen | None = None, free: Callable[[], int | None] = lambda: memory_bytes("MemAvailable"),
    ) -> None:  # fmt: skip
        """`start_link` starts a SuperLink; `free` says how many bytes of memory are."""
        self.stop = threading.Event()
        self._experiment = experiment
        self._waiting = list(rows)
        self._running: dict[Future[Outcome], Progress] = {}
        self._failures: dict[str, str] = {}
        self.counts = Counts(len(experiment.plan.rows) - len(rows), len(rows), at_once=at_once)
        self._screen = screen or Screen(self.counts)
        self._screen.counts = self.counts
        self._links = _Links(start_link)
        self._usage, self._free, self._looked = Usage(), free, 0.0
        self._knows_memory = False

    def run(self) -> dict[str, str]:
        """Until all rows are done, or `stop` is set; the reason by row name of those that failed."""
        pool = ThreadPoolExecutor(max(1, self.counts.at_once), thread_name_prefix="row")
        with self._screen:
            try:
                self._links.get()  # or no row can be done, which is one sentence instead of many
                while (self._waiting or self._running) and not self.stop.is_set():
                    self._look()
                    while self._waiting and self._may_start():
                        self._start(pool)
                    self._screen.show(list(self._running.values()))
                    self.stop.wait(LOOK_SECONDS)
            finally:
                self._end(pool)
        return self._failures

    def _look(self) -> None:
        """At the SuperLink, at rows that have ended, at how far the others are, and at the memory that they take."""
        self._links.bury()
        for future in [future for future in self._running if future.done()]:
            self._collect(self._running.pop(future), future.result())
        for progress in self._running.values():
            progress.look()
        if time.monotonic() > self._looked + MEMORY_SECONDS:
            self._usage.look(self._links.simulations())
            self._looked = time.monotonic()
            self._knows_memory |= any(progress.has_trained for progress in self._running.values())

    def _may_start(self) -> bool:
        self.counts.wait = ""
        if not self._running:
            return True
        if len(self._running) >= self.counts.at_once:
            return False
        if not self._knows_memory:
            self.counts.wait = "the next one starts after a round of the first"
        elif not has_room(self._free(), self._usage.most, list(self._usage.now.values())):
            self.counts.wait = f"the next one waits for {self._usage.most / 2**30:.1f} GiB of memory"
        return not self.counts.wait

    def _start(self, pool: ThreadPoolExecutor) -> None:
        row = self._waiting.pop(0)
        self.counts.waiting -= 1
        if self._experiment.failures.pop(row.name, None) is not None:
            save(self._experiment)
        progress = Progress(row, self._experiment.run_dir(row), rounds_of(row))
        resumed = f", resumed after round {progress.done}" if progress.done else ""
        self._screen.say(f"{name_of(row)}: started{resumed}")
        self._running[pool.submit(self._do, row)] = progress

    def _do(self, row: Row) -> Outcome:
        """Start a row until it is complete, fails, or has been cut off too often."""
        outcome = Outcome("it was not started", cut_off=True)
        for start in range(STARTS):
            if self.stop.is_set():
                return outcome
            if start:
                self._screen.say(f"{name_of(row)}: started again: {outcome.reason}")
            try:
                outcome = self._links.get().do(row)
            except (ExperimentError, OSError) as error:
                return Outcome(str(error))
            if not outcome.cut_off:
                return outcome
        return Outcome(f"it was started {STARTS} times and cut off each time: {outcome.reason}")

    def _collect(self, progress: Progress, outcome: Outcome) -> None:
        """Note down how a row has ended."""
        row, took = progress.row, time.monotonic() - progress.began
        progress.look()
        self.counts.took.append(took)
        self._knows_memory = True
        if outcome.reason:
            self.counts.failed += 1
            self._failures[row.name] = self._experiment.failures[row.name] = outcome.reason
            save(self._experiment)
            self._screen.say(f"{name_of(row)}: failed: {outcome.reason} (log: {self._experiment.log(row)})")
            return
        self.counts.done += 1
        accuracy = f", {progress.accuracy_to(2)}" if progress.accuracy else ""
        self._screen.say(
            f"{name_of(row)}: done in {took:.0f} s{accuracy} after {progress.done} round{'s' * (progress.done != 1)}"
        )
        if self._experiment.plan.keep == "results":
            drop_large(progress.run_dir)

    def _end(self, pool: ThreadPoolExecutor) -> None:
        """Runs may say how to resume; then all processes end, and after them the threads that watch them."""
        cut = [future for future in self._running if not future.done()]
        self.stop.set()
        if cut:
            self._links.interrupt()
            until = time.monotonic() + ENDING_SECONDS
            while not all(future.done() for future in cut) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS / 5)
        self._links.stop()
        pool.shutdown()


class _Links:
    """The SuperLink of the moment: another one is started when it has died."""

    def __init__(self, start: Callable[[], Link]) -> None:
        self._start = start
        self._one: Link | None = None
        self._ended = False
        self._lock = threading.Lock()

    def get(self) -> Link:
        """The living one.

        Raises:
            ExperimentError: It did not start, or all have been stopped.
        """
        with self._lock:
            if self._ended:
                raise ExperimentError("no more rows are started")
            if self._one is None or not self._one.is_alive:
                if self._one:
                    self._one.stop()
                self._one = self._start()
            return self._one

    def bury(self) -> None:
        """End what still waits for one that has died."""
        with self._lock:
            if self._one is not None and not self._one.is_alive:
                self._one.stop()

    def simulations(self) -> list[int]:
        return self._one.simulations() if self._one else []

    def interrupt(self) -> None:
        """Ask what runs to end."""
        with self._lock:
            if self._one:
                self._one.interrupt()

    def stop(self) -> None:
        """End it; from now on there is none."""
        with self._lock:
            self._ended = True
            if self._one:
                self._one.stop()


def drop_large(run_dir: Path) -> None:
    """Remove the large files of a run that is complete. Links are left as they are, and so is what they lead to."""
    if run_dir.is_symlink():
        return
    for path in (run_dir / name for name in LARGE):
        if path.is_symlink():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let Ctrl-C, SIGTERM and a closed terminal set `stop`; yields the list of those that came.

    One that this process was told to ignore, as by `nohup`, stays ignored.
    """
    caught: list[int] = []
    known = {}

    def catch(number: int, _: FrameType | None) -> None:
        caught.append(number)
        stop.set()

    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    known[number] = signal.signal(number, catch)
        yield caught
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


def _how_to_go_on(counts: Counts) -> str:
    return (
        f"Stopped with {counts.done} row{'s' * (counts.done != 1)} done. Those that were running keep their finished"
        " rounds; to go on, start the same command again."
    )
