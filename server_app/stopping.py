"""Ending a run on purpose: Flower marks it failed, and the log says why in one sentence instead of a traceback."""

import contextlib
import logging
from collections.abc import Iterator
from logging import INFO
from pathlib import Path

from flwr.common import log

from config import ConfigError
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


@contextlib.contextmanager
def resume_hint(run_dir: Path, num_clients: int) -> Iterator[None]:
    """Log how to go on when the rounds end early, whatever the reason."""
    try:
        yield
    except BaseException:
        log(
            INFO,
            'To go on: flwr run . --stream --federation-config "num-supernodes=%d ..." -c "resume=\'%s\'"',
            num_clients,
            run_dir,
        )
        raise


def report_in_one_sentence() -> None:
    """Install the filter on Flower's logger, once per process."""
    logger = logging.getLogger("flwr")
    if not any(isinstance(known, OneSentence) for known in logger.filters):
        logger.addFilter(OneSentence())
