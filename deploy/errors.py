"""The one exception that this room raises on purpose."""


class DeployError(ValueError):
    """A bad flag or folder, said in one sentence: which, and what is allowed."""
