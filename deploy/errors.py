"""The one exception this package raises deliberately."""


class DeployError(ValueError):
    """A bad flag or folder, in one sentence: which, and what is allowed."""
