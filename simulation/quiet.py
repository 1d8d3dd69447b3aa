"""Leaves out of the log what Flower and Ray say to their own developers, once or in every round."""

import logging
import warnings

NOISE = ("configure_train: Sampled", "configure_evaluate: Sampled", "Manually terminating")


class WithoutNoise(logging.Filter):
    """Lines that tell a user nothing that the app's own do not."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.msg, str) and record.msg.startswith(NOISE))


def quieten() -> None:
    """Install `WithoutNoise` on Flower's logger, and silence Ray's advice on a later version; once per process."""
    logger = logging.getLogger("flwr")
    if not any(isinstance(known, WithoutNoise) for known in logger.filters):
        logger.addFilter(WithoutNoise())
        warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
