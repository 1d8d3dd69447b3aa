"""Ending a run on purpose: Flower marks it failed, and the log says why in one sentence instead of a traceback."""

import logging

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


def report_in_one_sentence() -> None:
    """Install the filter on Flower's logger, once per process."""
    logger = logging.getLogger("flwr")
    if not any(isinstance(known, OneSentence) for known in logger.filters):
        logger.addFilter(OneSentence())
