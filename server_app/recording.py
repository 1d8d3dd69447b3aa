"""Keeps `run.json`: that a run began, through every resume, and how it ended. No run depends on it."""

import contextlib
import hashlib
import os
import platform
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from logging import WARNING
from pathlib import Path

import torch
from flwr.common import log

from config.run_config import RunConfig
from data.errors import DataError
from data.release import Release, training_split
from data.text import one_line
from messages.fingerprint import running_code
from server_app.members import Member, roll_of
from server_app.resume import Start
from server_app.run_record import FILE, Ended, RunRecord, read_record, write_record
from server_app.set_aside import copy_aside
from server_app.stopping import EXPECTED
from server_app.writing import why_not_written

PACKAGES = ("flwr", "torch", "torchvision", "numpy")
LONGEST = 2000  # characters of a reason


class Recorder:
    """The record of one start of a run.

    Attributes:
        reason: Why the run ended before its last round, if a rule of its config has ended it.
        interrupted: Is set by a signal that ends the run, whose record then stays as it began.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.interrupted = threading.Event()
        self._run_dir = Path()
        self._record: RunRecord | None = None

    def begin(self, start: Start, flower_run: str, data: Mapping[str, str], members: Sequence[Member]) -> None:
        """Record that a run begins in its folder, or goes on there; a record that is none, or another's, is set aside.

        Args:
            start: Where.
            flower_run: Flower's id of it.
            data: See `RunRecord`.
            members: Its clients.
        """
        known = read_record(start.run_dir)
        if known is None or known.run != start.run:
            known = None
            if (path := start.run_dir / FILE).exists():
                log(WARNING, "%s is damaged, or another run's; it is now %s.", path, copy_aside(path))
        self._run_dir = start.run_dir
        self._record = RunRecord(
            run=start.run,
            flower_run=flower_run,
            started=known.started if known else _now(),
            code=list(dict.fromkeys([*(known.code if known else ()), running_code()])),
            versions={name: version(name) for name in PACKAGES},
            machine=machine(),
            data=dict(data),
            clients=len(members),
            held=hashlib.sha256(roll_of(members).encode()).hexdigest()[:16],
        )
        write_record(self._run_dir, self._record)

    def end(self, how: Ended, reason: str) -> None:
        """Record how a run that began has ended; if that cannot be written, the log says so."""
        if self._record is None:
            return
        reason = one_line(reason, LONGEST) if reason else ""
        try:
            write_record(self._run_dir, replace(self._record, ended=_now(), how=how, reason=reason))
        except Exception as error:  # it must hide neither a result nor what has stopped the run
            log(WARNING, "%s; it does not say how the run ended.", why_not_written(self._run_dir / FILE, error))


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Record how the block ends; after a signal or Ctrl-C, as after a kill, the record stays as it began."""
    recorder = Recorder()
    try:
        yield recorder
    except Exception as error:
        if not recorder.interrupted.is_set():
            recorder.end("stopped", str(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {error}")
        raise
    recorder.end("finished", recorder.reason)


def data_of(release: Release | None, config: RunConfig, lists: Mapping[str, str]) -> dict[str, str]:
    """The digests of what the server reads, and of the list that clients hold, if the server has it as well."""
    with contextlib.suppress(DataError, OSError):
        return {**lists, **({"train": training_split(release, config.train_split).digest} if release else {})}
    return dict(lists)


def machine() -> dict[str, str]:
    """This one, see `RunRecord`."""
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": _gpus(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return one_line(line.partition(":")[2])
    return platform.machine()


def _gpus() -> str:
    """Names, each with how many there are; of those that the server sees."""
    with contextlib.suppress(RuntimeError, AssertionError):
        names = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in names.items())
    return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
