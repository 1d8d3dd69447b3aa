"""Stops a run deliberately: Flower marks it failed, and the log gives one sentence instead of a traceback."""

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
from server_app.node_names import NodeNames, forget
from simulation.quiet import quieten


class RunStoppedError(Exception):
    """The run cannot continue; the message is one sentence. Finished rounds are on disk."""


EXPECTED = (ConfigError, DataError, RunStoppedError)


class OneSentence(logging.Filter):
    """Flower logs the exception that ends a ServerApp with a traceback; for expected ones the sentence says more."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, EXPECTED):
            record.msg, record.args = "The run stopped: %s", (str(error),)
            record.exc_info = record.exc_text = None
        return True


def resume_command(run_dir: Path) -> str:
    """The command that resumes the run in this folder."""
    return f"flwr run . --stream -c \"resume='{run_dir}'\""


@contextlib.contextmanager
def resumable(run_dir: Path) -> Iterator[threading.Event]:
    """Log how to resume if the block ends by an exception, Ctrl-C, SIGTERM or `flwr stop`.

    The last three reach the process as signals. Flower handles them with exit handlers, this one first, and exits at
    most five seconds later; in a simulation the ServerApp's thread does not notice them. The command is also logged
    when the block begins, because a process is not always given last words.

    Yields:
        An event that such a signal sets; the block should then end soon.
    """
    interrupted = threading.Event()
    running = True
    command = resume_command(run_dir)

    def on_exit() -> None:
        if running:
            interrupted.set()
            log(INFO, "Interrupted; finished rounds are kept. To resume:")
            log(INFO, "  %s", command)

    add_exit_handler(on_exit)
    log(INFO, "If this run is cut short, resume it with the same")
    log(INFO, "--federation-config or connection, and with")
    log(INFO, "  %s", command)
    try:
        yield interrupted
    except BaseException:
        if not interrupted.is_set():
            log(INFO, "To resume:")
            log(INFO, "  %s", command)
        raise
    finally:
        running = False


def report_for_people() -> None:
    """Install what makes Flower's log readable on its logger, once per process."""
    quieten()
    forget()
    logger = logging.getLogger("flwr")
    for wanted in (OneSentence, NodeNames):  # in this order
        if not any(isinstance(known, wanted) for known in logger.filters):
            logger.addFilter(wanted())
