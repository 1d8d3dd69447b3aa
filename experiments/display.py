"""What people see while rows run: on a terminal a line for each running row, elsewhere one when something happens.

Names of rows are other people's text: it is cut, made printable, and never read as rich's markup.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from config.measure import CLEAN_TEST, Measure, measure_of
from data.text import label, one_line
from experiments.estimate import in_words
from experiments.plan import Row
from runs.run import read_config
from server_app.round_lines import METRICS, read_lines

LONGEST = 1000  # characters of a sentence
RECENT = 5  # rounds whose mean time is expected of those that are left
GAP = "  "
LEAST = 12  # columns of a name, however narrow the terminal


@dataclass
class Progress:
    """How far a row that runs is, as its run folder says.

    Attributes:
        row: Which.
        run_dir: Its run's folder, which need not exist yet.
        asked: Rounds that it is to train.
        began: When it was started this time, as `time.monotonic` says.
        rounds: The lines of its metrics.jsonl.
        first: How many of them are from earlier starts.
        starting: Seconds that this start took before its first round; 0 until that has ended.
        measure: What its accuracies are on.
    """

    row: Row
    run_dir: Path
    asked: int
    began: float = field(default_factory=time.monotonic)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    first: int = 0
    starting: float = 0.0
    measure: Measure = CLEAN_TEST
    _size: int = 0

    def __post_init__(self) -> None:
        self.look()
        self.first = len(self.rounds)

    def look(self) -> None:
        """Read the folder again, if the file of metrics has changed."""
        path = self.run_dir / "metrics.jsonl"
        try:
            size = path.stat().st_size
        except OSError:
            return
        if size != self._size:
            before, self._size, self.rounds = self.has_trained, size, read_lines(path, 10**9, METRICS).entries
            self.measure = measure_of(read_config(self.run_dir)[0])
            if self.has_trained and not before:
                trained = sum(filter(None, map(_seconds_of, self.rounds[self.first :])))
                self.starting = max(0.0, time.monotonic() - self.began - trained)

    @property
    def has_trained(self) -> bool:
        """Whether a round has ended since this start."""
        return len(self.rounds) > self.first

    @property
    def done(self) -> int:
        return int(self.rounds[-1]["round"]) if self.rounds else 0

    @property
    def accuracy(self) -> str:
        """Of the last round that was evaluated, and on what if that is not clean test; empty before there is one."""
        return self.accuracy_to(1)

    def accuracy_to(self, decimals: int) -> str:
        """`accuracy` in percent with so many decimals."""
        found = self.measure.by_round(self.rounds)
        on = "" if self.measure == CLEAN_TEST else f" on {self.measure.short}"
        return f"{100 * found[max(found)]:.{decimals}f} %{on}" if found else ""

    @property
    def round_seconds(self) -> float | None:
        """Mean of the latest rounds."""
        found = [seconds for line in self.rounds[-RECENT:] if (seconds := _seconds_of(line)) is not None]
        return mean(found) if found else None

    @property
    def seconds_left(self) -> float | None:
        return None if self.round_seconds is None else self.round_seconds * max(0, self.asked - self.done)


def _seconds_of(line: dict[str, Any]) -> float | None:
    seconds = line.get("seconds")
    return seconds if isinstance(seconds, (int, float)) else None


@dataclass
class Counts:
    """How far the whole is.

    Attributes:
        done: Rows that are complete, those of earlier starts as well.
        waiting: Rows that have not been started.
        failed: Rows that have failed this time.
        wait: Why the next one is not started although a place is free; empty if it is.
        at_once: How many rows may run at once.
        took: Seconds of each row that has ended this time.
    """

    done: int = 0
    waiting: int = 0
    failed: int = 0
    wait: str = ""
    at_once: int = 1
    took: list[float] = field(default_factory=list)


class Screen:
    """``with Screen(counts) as screen: ...``: writes to the error stream."""

    def __init__(self, counts: Counts, console: Console | None = None) -> None:
        self.counts = counts
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """A line that stays, with the time of day."""
        self._console.print(Text(f"{time.strftime('%H:%M:%S')}  {one_line(sentence, LONGEST)}"), soft_wrap=True)

    def show(self, running: Sequence[Progress]) -> None:
        """Draw the running rows anew; without a terminal nothing."""
        if self._console.is_terminal:
            self._live.update(drawn(running, self.counts, self._console.width), refresh=True)


def drawn(running: Sequence[Progress], counts: Counts, width: int) -> Group:
    """A line for each running row, and one for the whole; names are cut so that the numbers fit into `width`."""
    numbers = [_numbers(one) for one in running]
    room = width - sum(max(map(len, column)) + len(GAP) for column in zip(*numbers, strict=True))
    table = Table.grid(padding=(0, len(GAP), 0, 0))
    for column in range(5):
        table.add_column(justify="right" if column else "left", no_wrap=True)
    for one, cells in zip(running, numbers, strict=True):
        name = Text(label(name_of(one.row), LONGEST))
        name.truncate(max(room, LEAST), overflow="ellipsis")  # in columns, of which some characters take two
        table.add_row(name, *map(Text, cells))
    return Group(table, Text(summary(running, counts)))


def _numbers(one: Progress) -> tuple[str, str, str, str]:
    pace = "starting" if one.round_seconds is None else f"{one.round_seconds:.1f} s a round"
    left = "" if one.seconds_left is None else f"{in_words(one.seconds_left)} left"
    return f"round {one.done}/{one.asked}", one.accuracy, pace, left


def name_of(row: Row) -> str:
    """A row for people."""
    return ", ".join([*(text for text in (row.label, row.setting) if text), f"seed {row.seed}"])


def summary(running: Sequence[Progress], counts: Counts) -> str:
    """The whole in one line."""
    parts = [f"{counts.done} done, {len(running)} running, {counts.waiting} waiting"]
    parts += [f"{counts.failed} failed"] * bool(counts.failed)
    if (left := seconds_left(running, counts)) is not None:
        parts.append(f"about {in_words(left)} left")
    return ", ".join(parts) + (f"; {counts.wait}" if counts.wait else "")


def seconds_left(running: Sequence[Progress], counts: Counts) -> float | None:
    """Until all rows are done; None as long as that cannot be told.

    A row that waits is expected to take as long as those that have ended, or else as those that run.
    """
    rest = [one.seconds_left for one in running]
    known = [each for each in rest if each is not None]
    lasting = [one.starting + one.round_seconds * one.asked for one in running if one.round_seconds is not None]
    if not (expected := counts.took or lasting):
        return None
    whole = mean(expected)
    work = sum(known) + whole * (counts.waiting + len(rest) - len(known))
    return max([work / max(1, min(counts.at_once, len(running) + counts.waiting)), *known])
