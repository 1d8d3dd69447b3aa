"""The exceptions this package raises deliberately."""


class DataError(ValueError):
    """Bad data, in one sentence: the file, key or flag that is wrong, and what is allowed."""


class StoppedByUserError(DataError):
    """Ctrl-C; what is done so far is kept, and the sentence says how to resume."""


class BadImageError(DataError):
    """One image is missing or damaged; a caller may go on without it."""


class DamageError(ValueError):
    """Bytes that are not a whole image of a kind that is read; the text says why, for brackets in a sentence."""
