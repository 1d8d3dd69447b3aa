"""`run.json`: what a run was made of besides its config, when it ran, and how it ended."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from config.rules import is_encodable
from data.whole_files import replace_file

FILE = "run.json"
Ended = Literal["", "finished", "stopped"]


@dataclass(frozen=True)
class RunRecord:
    """One run, from its first start to its end, through all resumes.

    Attributes:
        run: The run's identity, which resuming keeps.
        flower_run: Flower's id of the run, or of the one that resumed it last.
        started: When it first began: ISO 8601, in UTC, to the second.
        ended: When it last ended; empty while it runs, and after it was killed.
        how: ``finished``, or ``stopped`` by an error; empty while it runs, and after it was killed.
        reason: Why it ended before its last round, in one sentence: what a rule of the config says (`patience`,
            `target-accuracy`, `max-hours`) if it finished, the error if it was stopped; empty otherwise.
        code: Fingerprint of each version of the code that it ran, in order, without repetitions.
        versions: By package.
        machine: In words, of the server: ``cpu``, ``cores``, ``gpu`` (empty without one), ``python``, ``system``.
        data: Digests of the lists that it was trained and evaluated on, by name: those that `test-split` and
            `val-split` name, and ``train`` where the server has the list that clients hold; none if it has no data.
        clients: How many there are.
        held: Digest of who holds which images with which labels. Runs with one seed and one partition share it.
    """

    run: str
    flower_run: str
    started: str
    ended: str = ""
    how: Ended = ""
    reason: str = ""
    code: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    clients: int = 0
    held: str = ""


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Replace the file; a crash leaves the old one or the new one."""
    values = {name.replace("_", "-"): value for name, value in asdict(record).items()}
    replace_file(run_dir / FILE, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def read_record(run_dir: Path) -> RunRecord | None:
    """What a run's folder says; None if the file is missing or damaged, or lacks something."""
    try:
        values: Any = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        record = RunRecord(**{name.replace("-", "_"): value for name, value in values.items()})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: RunRecord) -> bool:
    maps = (record.versions, record.machine, record.data)
    if not (isinstance(record.code, list) and all(isinstance(one, dict) for one in maps)):
        return False
    texts = [record.run, record.flower_run, record.started, record.ended, record.reason, record.held, *record.code]
    texts += [text for one in maps for pair in one.items() for text in pair]
    return (
        all(isinstance(text, str) and is_encodable(text) for text in texts)
        and re.fullmatch(r"[\w-]*", record.run) is not None  # it names a folder
        and record.how in ("", "finished", "stopped")
        and type(record.clients) is int
    )
