"""The one exception this package raises deliberately."""


class ExperimentError(ValueError):
    """The experiment cannot be run as described; each of its `args` is one sentence."""

    def __str__(self) -> str:
        return " ".join(map(str, self.args))
