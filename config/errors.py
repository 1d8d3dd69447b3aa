"""The one exception that a bad setting raises."""


class ConfigError(ValueError):
    """A bad run-config value; its text is one sentence with the key, the value and what is allowed."""
