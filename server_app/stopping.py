"""Ending a run on purpose: Flower marks it failed, and the log says why in one sentence instead of a traceback."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from logging import INFO
from pathlib import Path

from flwr.common import log
from flwr.supercore.exit import add_exit_handler

from config.run_config import ConfigError
from data.errors import DataError


class RunStoppedError(Exception):
    """The run cannot go on, said in one sentence. What was computed before it is on disk."""


EXPECTED = (ConfigError, DataError, RunStoppedError)


class OneSentence(logging.Filter):
    """Flower logs the exception that ends a ServerApp with its traceback; for ours the sentence says more."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, EXPECTED):
            record.msg, record.args = "The run stopped: %s", (str(error),)
            record.exc_info = record.exc_text = None
        return True


def how_to_go_on(run_dir: Path) -> str:
    """The command that continues the run of this folder."""
    return f"flwr run . --stream -c \"resume='{run_dir}'\"   (with the same --federation-config or connection)"


@contextlib.contextmanager
def resumable(run_dir: Path) -> Iterator[threading.Event]:
    """Log how to go on if the block does not end well: by an exception, Ctrl-C, SIGTERM or `flwr stop`.

    The last three reach the process as signals. Flower answers them by exit handlers, ours first, and leaves the
    process five seconds later at most; in a simulation the ServerApp's thread hears nothing of them. It is also said
    when the block begins, because not everything that ends a process lets it speak.

    Yields:
        An event that such a signal sets; the block should end soon then.
    """
    interrupted = threading.Event()
    running = True
    go_on = how_to_go_on(run_dir)

    def on_exit() -> None:
        if running:
            interrupted.set()
            log(INFO, "Interrupted; rounds that are done are kept. To go on: %s", go_on)

    add_exit_handler(on_exit)
    log(INFO, "If this run is cut short, it goes on with: %s", go_on)
    try:
        yield interrupted
    except BaseException:
        if not interrupted.is_set():
            log(INFO, "To go on: %s", go_on)
        raise
    finally:
        running = False


def report_in_one_sentence() -> None:
    """Install the filter on Flower's logger, once per process."""
    logger = logging.getLogger("flwr")
    if not any(isinstance(known, OneSentence) for known in logger.filters):
        logger.addFilter(OneSentence())
