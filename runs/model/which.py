"""Which of a run's models is meant."""

from enum import StrEnum


class Which(StrEnum):
    """By round."""

    LAST = "last"
    BEST = "best"
