"""The one exception this package raises deliberately."""


class DataError(ValueError):
    """Bad data, in one sentence: the file, key or flag that is wrong, and what is allowed."""
