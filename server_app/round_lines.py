"""JSON Lines files of a run, one object per line with its ``round``: what a resumed run keeps of them.

Every valid line up to the resumed round stays as it is, byte for byte. If anything else is in the file, all of it is
copied to ``set-aside/`` first.
"""

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.common import log

from config.run_config import ConfigError
from data.whole_files import replace_file
from server_app.set_aside import copy_aside

Entry = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What lines of a file are like.

    Attributes:
        holds: Whether an object with a valid round has what is read of it.
        about: What a line tells of; the last valid one replaces those before it. None: every line counts.
    """

    holds: Callable[[Entry], bool]
    about: Callable[[Entry], Hashable] | None = None


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _holds_accuracy(entry: Entry) -> bool:
    """Of a round that was not evaluated it is null, and must be there all the same."""
    accuracy = entry.get("test-accuracy", "")
    return accuracy is None or _is_share(accuracy)


METRICS = Kind(_holds_accuracy, about=lambda entry: entry["round"])
FAILURES = Kind(lambda entry: type(entry.get("partition")) is int and isinstance(entry.get("reason"), str))
CLIENTS = Kind(
    lambda entry: type(entry.get("client")) is int and entry["client"] >= 0,
    about=lambda entry: (entry["round"], entry["client"]),
)


@dataclass(frozen=True)
class Lines:
    """A file's lines.

    Attributes:
        kept: Valid ones up to the resumed round, as bytes without line ends, each with its object.
        damaged: How many are not valid.
        later: How many valid ones are of rounds that will be repeated.
        doubled: How many valid ones were written again later.
    """

    kept: list[tuple[bytes, Entry]]
    damaged: int = 0
    later: int = 0
    doubled: int = 0

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, entry in self.kept]


def read_lines(path: Path, last_round: int, kind: Kind) -> Lines:
    """Read a file; one that is missing, or no file at all, has no lines.

    Raises:
        ConfigError: It cannot be read.
    """
    return _sorted_out(_content(path), last_round, kind)


def keep_lines(path: Path, last_round: int, kind: Kind) -> None:
    """Leave in a file what a run that resumes after `last_round` keeps; all of a file that loses lines is set aside."""
    content = _content(path)
    lines = _sorted_out(content, last_round, kind)
    counts = {"damaged": lines.damaged, "of rounds that are repeated": lines.later, "written twice": lines.doubled}
    if any(counts.values()):
        why = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        level = WARNING if lines.damaged else INFO
        log(
            level,
            "%s: left out %d lines (%s); all of them are in %s.",
            path,
            sum(counts.values()),
            why,
            copy_aside(path),
        )
    kept = b"".join(line + b"\n" for line, _ in lines.kept)
    if kept != content:
        replace_file(path, kept)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); it must be readable, or moved away.") from None


def _sorted_out(content: bytes, last_round: int, kind: Kind) -> Lines:
    raw = [line.strip() for line in content.split(b"\n")]
    read = [(line, _entry(line, kind)) for line in raw if line]
    valid = [(line, entry) for line, entry in read if entry is not None]
    kept = [(line, entry) for line, entry in valid if entry["round"] <= last_round]
    last = list({kind.about(entry): (line, entry) for line, entry in kept}.values()) if kind.about else kept
    last.sort(key=lambda pair: pair[1]["round"])
    return Lines(last, len(read) - len(valid), len(valid) - len(kept), len(kept) - len(last))


def _entry(line: bytes, kind: Kind) -> Entry | None:
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if isinstance(entry, dict) and type(entry.get("round")) is int and entry["round"] >= 1 and kind.holds(entry):
        return entry
    return None
