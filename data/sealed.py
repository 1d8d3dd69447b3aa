"""Safetensors files with facts beside the arrays and one SHA-256 over all of it, so that no damage goes unnoticed.

The metadata holds the format's name, the facts as JSON and the checksum. The library's own header has no checksum, and
does not keep the order of the arrays; the facts do.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from data.whole_files import replacing


class DamagedError(ValueError):
    """A file is not what was written; the message completes a sentence that starts with the file's name."""


class UnreadableError(DamagedError):
    """A file cannot be opened, whatever is in it."""


def write_sealed(path: Path, form: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file; a reader of `path` always finds a complete one, even after a power failure.

    Args:
        path: Replaced in one step.
        form: The format's name and version.
        facts: Whatever JSON can hold, without ``order``.
        arrays: By name; their order is kept.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    text = json.dumps({**facts, "order": list(arrays)})
    with replacing(path) as temporary:
        save_file(arrays, temporary, {"format": form, "facts": text, "sha256": _checksum(text, arrays)})
        temporary.chmod(0o644)  # safetensors makes files private


def read_sealed(path: Path, form: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts and arrays of a file, exactly as they were written.

    Raises:
        DamagedError: It is missing, truncated, modified, or another kind of file.
        UnreadableError: It cannot be opened.
    """
    try:
        if not path.is_file():  # the library would wait for a pipe
            raise DamagedError("is not a file" if path.exists() else "does not exist")
        with path.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise DamagedError(f"cannot be read ({(str(error) or type(error).__name__).splitlines()[0]})") from None
    if metadata.get("format") != form:
        raise DamagedError(f"is not a {form.partition(' ')[2].rpartition(' ')[0]} of this version")
    try:
        facts = json.loads(metadata["facts"])
        ordered = {name: arrays[name] for name in facts["order"]}
        expected = metadata["sha256"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"is incomplete ({error})") from None
    if expected != _checksum(metadata["facts"], ordered):
        raise DamagedError("has changed since it was written: its checksum does not match")
    return facts, ordered


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    seen = hashlib.sha256(text.encode())
    for name, value in arrays.items():
        seen.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        seen.update(np.ascontiguousarray(value).data)
    return seen.hexdigest()
