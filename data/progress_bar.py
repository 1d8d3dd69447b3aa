"""A progress bar for work on many images, which Ctrl-C may stop."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data.errors import StoppedByUserError


@contextmanager
def progress_bar(what: str, total: int, command: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on the error stream, if that is a terminal.

    Args:
        what: What is counted.
        total: How many of them there are.
        command: What to repeat to resume after a stop.

    Yields:
        A function to call with the number of things just done.

    Raises:
        StoppedByUserError: Ctrl-C.
    """
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
    except KeyboardInterrupt:
        done = bar.tasks[task].completed
        raise StoppedByUserError(
            f"stopped after {done:,.0f} of {total:,} {what}; to resume, repeat the same `{command}` command."
        ) from None


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
