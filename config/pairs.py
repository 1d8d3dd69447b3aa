"""Settings as they are typed after `-c` and `--federation-config`, read as Flower reads them."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.text import one_line, shown

# Flower's own pattern (flwr.common.config.parse_config_args); what it does not match, Flower passes over in silence.
PAIR = re.compile(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)")


def read_pairs(flag: str, texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Values by key, and a sentence for each thing that cannot be read.

    Args:
        flag: What the user typed before each text.
        texts: ``key=value`` pairs with TOML values, or the path of one ``.toml`` file alone.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for text in texts:
        if not text.endswith(".toml"):
            values |= _read_text(flag, text, problems)
        elif len(texts) > 1:
            problems.append(f"{flag} {shown(text)}: a file cannot be combined with other settings.")
        else:
            try:
                values |= dict(_flat(tomllib.loads(Path(text).expanduser().read_text(encoding="utf-8"))))
            except (OSError, ValueError, RuntimeError, RecursionError) as error:
                why = getattr(error, "strerror", None) or str(error)
                problems.append(f"{flag} {shown(text)}: it must be a TOML file of keys ({one_line(why)}).")
    return values, problems


def _read_text(flag: str, text: str, problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in PAIR.findall(text):
        try:
            found = tomllib.loads(f"x = {value}")["x"]
            if not isinstance(found, (bool, int, float, str)):
                raise ValueError("not a number, true, false or text")
        except (ValueError, KeyError, RecursionError):
            plain = re.fullmatch(r"[\w-]+=[\w./~:-]+", f"{key}={value}")
            hint = f"text needs quotes: {key}='{value}'" if plain else "it must be TOML"
            problems.append(f"{flag}: {shown(key)} is {one_line(value)}, which cannot be read; {hint}.")
            continue
        if key in values:
            problems.append(f"{flag}: {shown(key)} is given twice.")
        values[key] = found
    if rest := PAIR.sub("", text).strip():
        problems.append(f"{flag}: {shown(rest)} is no key=value pair.")
    return values


def _flat(table: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found
