"""The one exception this package raises deliberately."""


class ExperimentError(ValueError):
    """The experiment cannot be run as described; the message is one sentence, or one for each fault."""
