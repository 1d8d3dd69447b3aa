"""By what `python -m runs list` sorts."""

from enum import StrEnum


class By(StrEnum):
    """Its columns."""

    STARTED = "started"
    NAME = "name"
    PRESET = "preset"
    METHOD = "method"
    STRATEGY = "strategy"
    ROUNDS = "rounds"
    STATUS = "status"
    ACCURACY = "accuracy"
    SIZE = "size"
