"""`key=value` pairs, as written on a command line: ``"alpha=0.5 min-size=10"``."""

import re
import tomllib
from typing import Any

_PAIR = re.compile(r"""([\w-]+)\s*=\s*("[^"]*"|'[^']*'|\[[^\]]*\]|[^\s"'\[]+)""")


def parse_pairs(text: str) -> dict[str, Any]:
    """Read pairs separated by spaces or commas; values are TOML, names may use hyphens.

    Returns:
        Python names (``min_size``) to values.

    Raises:
        ValueError: What could not be read.
    """
    args: dict[str, Any] = {}
    if rest := _PAIR.sub("", text).replace(",", " ").strip():
        raise ValueError(f"cannot read {rest!r}")
    for name, value in _PAIR.findall(text):
        python_name = name.replace("-", "_")
        if python_name in args:
            raise ValueError(f"'{name}' is given twice")
        try:
            args[python_name] = tomllib.loads(f"x = {value.rstrip(',')}")["x"]
        except RecursionError:
            raise ValueError(f"'{name}' is nested too deeply") from None
    return args
