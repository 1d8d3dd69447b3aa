"""What configs mean that earlier versions recorded: in checkpoints, in config.toml of runs."""

from collections.abc import Mapping
from typing import Any

# Keys that came later, and what runs did without them, which need not be today's default.
BEFORE: Mapping[str, Any] = {"stem": "imagenet", "normalization-args": ""}


def as_recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config under its kebab-case keys, with what the version that wrote it did where it says nothing."""
    return {**BEFORE, **values}
