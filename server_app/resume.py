"""Where a run resumes: in which folder, from which checkpoint, and why a checkpoint does not fit."""

import json
import tomllib
import uuid
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common import log

from config.run_config import ConfigError, RunConfig
from server_app.checkpoint_file import BadCheckpointError, Checkpoint, load_checkpoint
from server_app.files import create_run_dir, output_folder

CHECKPOINTS = "checkpoints"
# Keys that may differ from the run that is resumed: where things are, and how long it trains.
MAY_DIFFER = frozenset(
    {
        "num-server-rounds",
        "resume",
        "run-name",
        "output-dir",
        "cache-dir",
        "cache-gib",
        "state-dir",
        "tracking",
        "preset",
    }
)


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        run_dir: Its folder, which exists.
        checkpoint: Where to resume; None at the very beginning.
        metrics: The lines of metrics.jsonl up to there.
        run: The run's identity, which resuming keeps: clients keep their state under it.
    """

    run_dir: Path
    checkpoint: Checkpoint | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    @property
    def next_round(self) -> int:
        return self.checkpoint.server_round + 1 if self.checkpoint else 1


def saved_config(resume: str) -> dict[str, Any]:
    """The config of the run whose path is in `resume`, so that nobody has to retype it; empty for ``auto``.

    Raises:
        ConfigError: There is no run at that path.
    """
    if resume in ("", "auto"):
        return {}
    run_dir = _run_dir_of(Path(resume).expanduser())
    try:
        return tomllib.loads((run_dir / "config.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        raise ConfigError(
            f"run config: 'resume' is {resume!r}, where there is no run with a config.toml; it must be the folder of a"
            " run, or a checkpoint in it."
        ) from None


def find_start(config: RunConfig) -> Start | None:
    """The start that `resume` asks for; None for a new run, whose folder is created after all checks.

    ``auto`` takes the run named `run-name`, or without a name the newest unfinished run with the same config.

    Raises:
        ConfigError: The path has no usable checkpoint, or the config is not that of the run.
    """
    if not config.resume:
        return None
    if config.resume == "auto":
        return _automatic(config)
    path = Path(config.resume).expanduser()
    run_dir = _run_dir_of(path)
    checkpoint = _newest(run_dir, only=path if path.is_file() else None)
    if checkpoint is None:
        raise ConfigError(f"run config: 'resume' is {config.resume!r}, where there is no usable checkpoint.")
    _check_config(config, checkpoint)
    return _start(run_dir, checkpoint)


def begin(config: RunConfig, start: Start | None) -> Start:
    """`start`, or a new run in a new folder."""
    return start or Start(create_run_dir(config))


def _automatic(config: RunConfig) -> Start | None:
    parent = output_folder(config)
    if config.run_name:
        run_dir = parent / config.run_name
        if not run_dir.is_dir():
            return None
        checkpoint = _newest(run_dir)
        if checkpoint is None:
            return _start(run_dir, None) if not (run_dir / "model.safetensors").exists() else None
        _check_config(config, checkpoint)
        return _start(run_dir, checkpoint)
    folders = sorted(parent.glob(f"*/{CHECKPOINTS}"), key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
    for folder in folders:
        checkpoint = _newest(folder.parent)
        if (
            checkpoint is not None
            and not _differences(config, checkpoint)
            and checkpoint.server_round < config.num_server_rounds
        ):
            return _start(folder.parent, checkpoint)
    return None


def _run_dir_of(path: Path) -> Path:
    return path.parent.parent if path.is_file() else path


def _newest(run_dir: Path, only: Path | None = None) -> Checkpoint | None:
    """The newest readable checkpoint; unreadable ones are logged and skipped."""
    paths = [only] if only else sorted((run_dir / CHECKPOINTS).glob("round-*.safetensors"), reverse=True)
    for path in paths:
        try:
            return load_checkpoint(path)
        except BadCheckpointError as error:
            log(WARNING, "%s %s; using the checkpoint before it, if there is one.", path, error)
    return None


def _differences(config: RunConfig, checkpoint: Checkpoint) -> list[str]:
    current = config.to_flat()
    compared = sorted((current.keys() | checkpoint.config.keys()) - MAY_DIFFER)
    return [key for key in compared if current.get(key) != checkpoint.config.get(key)]


def _check_config(config: RunConfig, checkpoint: Checkpoint) -> None:
    current = config.to_flat()
    if differing := _differences(config, checkpoint):
        shown = ", ".join(
            f"'{key}' was {checkpoint.config.get(key)!r} and is now {current.get(key)!r}" for key in differing
        )
        raise ConfigError(f"run config: 'resume' needs the config of the resumed run, but {shown}.")
    if config.num_server_rounds < checkpoint.server_round:
        raise ConfigError(
            f"run config: 'num-server-rounds' is {config.num_server_rounds}, but the resumed run has finished"
            f" {checkpoint.server_round} rounds; it must be at least that."
        )


def _start(run_dir: Path, checkpoint: Checkpoint | None) -> Start:
    done = checkpoint.server_round if checkpoint else 0
    known = {"run": checkpoint.run} if checkpoint else {}
    return Start(run_dir.resolve(), checkpoint, read_lines(run_dir / "metrics.jsonl", done), **known)


def read_lines(path: Path, last_round: int) -> list[dict[str, Any]]:
    """Lines of a JSON Lines file up to a round; reading stops at a line that a kill truncated."""
    lines: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return lines
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break
        if entry["round"] <= last_round:
            lines.append(entry)
    return lines
