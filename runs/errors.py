"""The one exception this package raises deliberately."""


class RunsError(ValueError):
    """What was asked for cannot be done with these runs; the message is one sentence."""
