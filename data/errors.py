"""The one exception that this room raises on purpose."""


class DataError(ValueError):
    """Bad data, said in one sentence: the file, key or flag that is wrong, and what is allowed."""
