"""One start of a row: `flwr run` with its config, and what became of it."""

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import tomli_w

from data.text import one_line
from experiments.app_copy import app_copy
from experiments.plan import LOGS, Experiment, Row
from experiments.state import run_of
from experiments.superlink import SuperLink

LET_GO_SECONDS = 30.0  # a run says that it has ended shortly before its process has
HOME = "flower"  # of Flower, in the experiment's folder
COMPLETED, REFUSED = "finished:completed", "refused"
STOPPED = "The run stopped: "
LOOK_SECONDS = 0.5
SILENT = 5  # answers of `flwr list` that hold no status
LONGEST = 500  # characters of a reason
ERROR = re.compile(r"^(ERROR *:|Traceback )", re.MULTILINE)
LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR) *: *")
FRAME = "╭╰│─╮╯ "  # drawn by Flower around an error
# Lines that are no reason.
ADVICE = re.compile(r"^(flwr run \. |To resume:$|If this run is cut short|--federation-config or|Interrupted; )")


@dataclass(frozen=True)
class Outcome:
    """Of one start.

    Attributes:
        reason: Why the row is not complete; empty if it is.
        cut_off: Whether it was killed, or lost its SuperLink, so that another start may succeed.
    """

    reason: str = ""
    cut_off: bool = False


class Link(Protocol):
    """Where a row can be started: `FlowerLink`, or a test's."""

    @property
    def is_alive(self) -> bool: ...
    def do(self, row: Row) -> Outcome: ...  # blocks
    def simulations(self) -> list[int]: ...
    def interrupt(self) -> None: ...  # `do` then returns soon
    def stop(self) -> None: ...  # `do` then returns at once


class FlowerLink:
    """An experiment's SuperLink."""

    def __init__(self, experiment: Experiment, threads: int | None) -> None:
        """Start it.

        Args:
            experiment: What its rows belong to.
            threads: That each server computes with; None: as many as PyTorch likes.

        Raises:
            ExperimentError: It did not start, or the code has changed since the experiment was planned.
        """
        self._experiment = experiment
        self._app = app_copy(experiment.folder, experiment.plan.code)
        variables = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        log = experiment.folder / LOGS / "superlink.log"
        self._superlink = SuperLink(experiment.folder / HOME, log, variables, experiment.lock)
        self.simulations, self.stop = self._superlink.simulations, self._superlink.stop
        self._interrupted = False

    @property
    def is_alive(self) -> bool:
        return self._superlink.is_alive

    def interrupt(self) -> None:
        """Ask all rows to end, which log how to resume."""
        self._interrupted = True
        self._superlink.interrupt()

    def do(self, row: Row) -> Outcome:
        """Start a row, or resume it, and wait until it has ended."""
        folder, log = self._experiment.run_dir(row), self._experiment.log(row)
        if is_finished(self._experiment, row):  # the SuperLink had died before it could say so
            return Outcome()
        log.parent.mkdir(parents=True, exist_ok=True)
        config = log.with_suffix(".toml")
        places = {"output-dir": str(folder.parent), "run-name": row.name, "resume": "auto"}
        config.write_text(tomli_w.dumps({**row.config, **places}), encoding="utf-8")
        command = self._superlink.command(self._app, config, row.federation)
        with log.open("ab") as output:
            output.write(_heading(command).encode())
            output.flush()
            begin = log.stat().st_size
            run_id = self._superlink.run(command, output)
        if self._interrupted:
            return Outcome("it was interrupted", cut_off=True)
        status = self._status(run_id)
        said = log.read_bytes()[begin:].decode(errors="replace")
        return judged(status, said, lambda: is_finished(self._experiment, row))

    def _status(self, run_id: int | None) -> str:
        """What Flower says in the end: the stream may have ended before the run, or the SuperLink with it."""
        silent = 0
        while silent < SILENT and self._superlink.answers():
            if run_id is None:
                return REFUSED
            if (status := self._superlink.status(run_id)).startswith("finished"):
                return status
            silent += not status
            time.sleep(LOOK_SECONDS)
        self.stop()  # what is left of it
        return ""


def judged(status: str, said: str, finished: Callable[[], bool]) -> Outcome:
    """What became of a row.

    Args:
        status: What Flower says; ``refused`` if it did not take the run, empty if it does not answer.
        said: What this start has added to the log.
        finished: Whether the run's folder says that it has finished.
    """
    if not status:
        return Outcome("Flower's SuperLink ended", cut_off=True)
    if status == COMPLETED:
        return Outcome() if finished() else Outcome("Flower says that it has completed, but its folder does not")
    if found := reason_in(said, certain=status != REFUSED):
        return Outcome(found)
    return Outcome("its process was killed", cut_off=True)


def is_finished(experiment: Experiment, row: Row) -> bool:
    """Whether a row's run has finished; waits for the last moment of one whose process still ends."""
    until = time.monotonic() + LET_GO_SECONDS
    while (run := run_of(experiment, row)) and run.status == "running" and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return run is not None and run.status == "finished"


def reason_in(said: str, certain: bool) -> str:
    """Why a run ended, by its log.

    Args:
        said: Lines of the log.
        certain: Whether to take nothing but what Flower or the app called an error.

    Returns:
        The app's sentence, or else the last line that tells something; empty if nothing is certain.
    """
    lines = [LEVEL.sub("", line.strip(FRAME)).strip() for line in said.splitlines()]
    if stops := [line for line in lines if line.startswith(STOPPED)]:
        return one_line(stops[-1].removeprefix(STOPPED), LONGEST)
    if certain and not ERROR.search(said):
        return ""
    told = [line for line in lines if line and not ADVICE.match(line)]
    return one_line(told[-1] if told else "", LONGEST)


def _heading(command: list[str]) -> str:
    return f"\n# {datetime.now():%Y-%m-%d %H:%M:%S}: {shlex.join(command)}\n"
