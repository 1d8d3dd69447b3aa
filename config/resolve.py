"""Merges what a run's config is made of.

Precedence, lowest first: the defaults of `RunConfig` (which `config.settings` writes into pyproject.toml), the preset
that `preset` names (a file of ``config/presets/``), what the user set with ``flwr run -c``.

Parameters that a preset gives to its method, partition and the like are for those alone: whoever names another method
does not get them.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.errors import ConfigError
from config.rules import closest
from config.run_config import PRESETS, RunConfig
from data.text import shown

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def resolve(
    overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, presets: Path = PRESETS
) -> RunConfig:
    """`defaults` (pyproject.toml's), then the preset, then `overrides` (what the user set, and nothing else).

    Raises:
        ConfigError: An unknown preset or key, or a bad value.
    """
    return RunConfig.from_flat(fused_values(overrides, defaults, presets))


def fused_values(
    overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, presets: Path = PRESETS
) -> dict[str, Any]:
    """What `resolve` makes a config of: values by key, which nobody has checked.

    Raises:
        ConfigError: An unknown preset.
    """
    fused = {**(defaults or {}), **overrides}
    name = fused.get("preset", "")
    if not name:
        return fused
    available = {path.stem: path for path in sorted(presets.glob("*.toml"))}
    if name not in available:
        known = ", ".join(available)
        raise ConfigError(
            f"run config: 'preset' is {shown(name)}; it must be one of {known}{closest(name, available)}."
        )
    preset = tomllib.loads(available[name].read_text(encoding="utf-8"))
    others = {f"{key}-args" for key, value in preset.items() if overrides.get(key, value) != value}
    return {**fused, **{key: value for key, value in preset.items() if key not in others}, **overrides}


def app_defaults() -> dict[str, Any]:
    """Those of pyproject.toml, which a user may have edited."""
    config: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    return config
