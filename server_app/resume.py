"""Where a run resumes: in which folder, from which checkpoint, and why a checkpoint does not fit."""

import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common import log
from torch import nn

from config.recorded import as_recorded
from config.run_config import ConfigError, RunConfig
from data.layout.key_files import first_difference
from data.sealed import DamagedError
from data.user_cache import below_home
from data.whole_files import round_files, round_of, round_path
from learning.shared_state import frozen_digest, shared_state
from server_app.checkpoint_file import Checkpoint, load_checkpoint, save_checkpoint
from server_app.early_stop import past_of, why_over
from server_app.files import BEST, CHECKPOINTS, create_run_dir, output_folder, tidy
from server_app.may_differ import check_config, decides, differences, is_searched
from server_app.round_lines import METRICS, read_lines
from server_app.run_lock import RunLock, is_in_use
from server_app.run_record import read_record
from server_app.set_aside import FOLDER as SET_ASIDE
from server_app.set_aside import move_aside


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


def open_named(resume: str, lock: RunLock) -> Start | None:
    """What a path in `resume` names, whose folder is locked from now on; None for ``auto`` and new runs.

    Raises:
        ConfigError: There is no run at that path, none of its checkpoints is usable, or another process writes it.
    """
    if resume in ("", "auto"):
        return None
    path = below_home(resume)
    try:
        only = path if path.is_file() and path.parent.name in (CHECKPOINTS, SET_ASIDE) else None
        run_dir = path.parent.parent if only else path
        is_run = only or (run_dir / "config.toml").exists() or (run_dir / CHECKPOINTS).is_dir()
    except OSError as error:
        raise ConfigError(f"run config: 'resume' is {resume!r}, which cannot be read ({error.strerror}).") from None
    if not is_run:
        raise ConfigError(
            f"run config: 'resume' is {resume!r}, where there is no run with a config.toml or checkpoints; it must be"
            " the folder of a run, or a checkpoint in it."
        )
    lock.take(run_dir)
    checkpoint = _first_usable([only] if only else _candidates(run_dir))
    if checkpoint is None:
        raise ConfigError(f"run config: 'resume' is {resume!r}, where there is no usable checkpoint.")
    return _start(run_dir, checkpoint)


def saved_config(named: Start | None) -> dict[str, Any]:
    """The config of the run that `resume` names, so that nobody has to retype it; empty for ``auto`` and new runs.

    What decides the result comes from the checkpoint, which has a checksum. The other keys come from config.toml, which
    is newer if the run was resumed with other values, unless that file is damaged.
    """
    if named is None or named.checkpoint is None:
        return {}
    saved, newer = named.checkpoint.config, read_config(named.run_dir) or {}
    return {**saved, **{key: value for key, value in newer.items() if not decides(key, saved)}}


def read_config(run_dir: Path) -> dict[str, Any] | None:
    """The run config in config.toml; None if it is missing, damaged or incomplete."""
    try:
        values = as_recorded(tomllib.loads((run_dir / "config.toml").read_text(encoding="utf-8")))
        config = RunConfig.from_flat(values).to_flat()
    except (OSError, ValueError, RecursionError):
        return None
    return dict(config) if values.keys() == config.keys() else None


def find_start(config: RunConfig, lock: RunLock, named: Start | None = None) -> Start | None:
    """The start that `resume` asks for; None for a new run, whose folder is created after all checks.

    ``auto`` takes the run named `run-name`, or without a name the newest unfinished run with the same config.

    Args:
        config: The run's.
        lock: Takes the lock of the run's folder.
        named: What `open_named` found for a path.

    Raises:
        ConfigError: The path has no usable checkpoint, the config is not that of the run, or another process writes it.
    """
    if config.resume != "auto":
        start = named or open_named(config.resume, lock)
    elif config.run_name:
        start = _of_that_name(output_folder(config) / config.run_name, lock)
    else:
        start = _newest_unfinished(config, lock)
    if start and start.checkpoint:
        check_config(config, start.checkpoint)
    return start


def begin(config: RunConfig, start: Start | None, lock: RunLock) -> Start:
    """`start`, in whose folder nothing is in the way any more, or a new run in a new folder, which is locked."""
    if start:
        tidy(start.run_dir)
        _keep_resumable(start)
        return start
    start = Start(create_run_dir(config))
    lock.take(start.run_dir)
    (start.run_dir / CHECKPOINTS).mkdir()  # from now on `auto` finds the run
    return start


def _keep_resumable(start: Start) -> None:
    """If the run goes on from another file than its newest checkpoint, that is one from now on."""
    if start.checkpoint:
        path = round_path(start.run_dir / CHECKPOINTS, start.checkpoint.server_round)
        if _first_usable([path], quietly=True) is None:
            if path.exists() or path.is_symlink():
                move_aside(path, start.run_dir)
            path.parent.mkdir(exist_ok=True)
            save_checkpoint(path, start.checkpoint)


def check_data(
    checkpoint: Checkpoint, roll: str, lists: Mapping[str, str], class_names: tuple[str, ...] | None = None
) -> None:
    """Check that the data are those that the run began with, wherever they are now.

    Args:
        checkpoint: Where the run resumes.
        roll: Of the clients that have answered, see `server_app.members.roll_of`.
        lists: Digests of what the server reads.
        class_names: The classes now; None: not known.

    Raises:
        ConfigError: They are others.
    """
    resumed = "run config: 'resume' continues a run, but"
    for name, digest in checkpoint.lists.items():
        if lists.get(name, digest) != digest:
            raise ConfigError(
                f"{resumed} {name} in the server's 'data-dir' has changed since that run began: it names other images"
                " or labels."
            )
    if class_names and checkpoint.class_names and class_names != checkpoint.class_names:
        place, old, new = first_difference(checkpoint.class_names, class_names)
        raise ConfigError(
            f"{resumed} the classes have changed: that run had {len(checkpoint.class_names)}, and now there are"
            f" {len(class_names)}; number {place} was {old or 'none'} and is now {new or 'none'}."
        )
    if checkpoint.roll != roll:
        raise ConfigError(
            f"{resumed} the clients are not those of that run: their number or their images have changed."
        )


def check_network(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Check that a checkpoint's model has the tensors that travel of `model`, and belongs to those that do not.

    Raises:
        ConfigError: It is another network.
    """
    shapes = {name: tuple(value.shape) for name, value in shared_state(model).items()}
    saved = {name: value.shape for name, value in checkpoint.model.items()}
    for name in sorted(shapes.keys() | saved.keys()):
        if shapes.get(name) != saved.get(name):
            raise ConfigError(
                "run config: 'resume' found a checkpoint of another network than the config describes: in 'model',"
                f" {name!r} has the shape {shapes.get(name)}, there {saved.get(name)}."
            )
    if checkpoint.frozen != frozen_digest(model):
        raise ConfigError(
            "run config: 'resume' continues a run whose weights that do not train were other ones; 'pretrained' must"
            " name the same weights as when that run began, with the same versions of torch, torchvision and timm."
        )


def _of_that_name(run_dir: Path, lock: RunLock) -> Start | None:
    if not run_dir.is_dir():
        return None
    lock.take(run_dir)
    candidates = list(_candidates(run_dir))
    checkpoint = _first_usable(candidates)
    if checkpoint is None and candidates:
        raise ConfigError(
            f"run config: 'resume' is 'auto', but none of the checkpoints in {run_dir / CHECKPOINTS} is usable; restore"
            " one of them, or choose another 'run-name'."
        )
    if checkpoint is None and (run_dir / "model.safetensors").exists():
        return None
    return _start(run_dir, checkpoint)


def _newest_unfinished(config: RunConfig, lock: RunLock) -> Start | None:
    """Runs with another config are left alone, since other processes may be about to resume them."""
    for run_dir in _by_age(output_folder(config)):
        checkpoint = _first_usable(_candidates(run_dir), quietly=True)
        if checkpoint is None:
            saved = read_config(run_dir) if is_in_use(run_dir) else None
        else:
            saved = None if _is_over(run_dir, checkpoint, config) else checkpoint.config
        if saved is None or any(is_searched(key, saved) for key in differences(saved, config)):
            continue
        lock.take(run_dir)
        return _start(run_dir, _first_usable(_candidates(run_dir)))
    return None


def _is_over(run_dir: Path, checkpoint: Checkpoint, config: RunConfig) -> bool:
    """Whether a run has no round left to train, by its number of rounds or by a rule."""
    done = checkpoint.server_round
    if done >= config.num_server_rounds:
        return True
    lines = read_lines(run_dir / "metrics.jsonl", done, METRICS).entries
    return bool(why_over(past_of(done, lines, config, checkpoint.best), config))


def _by_age(parent: Path) -> list[Path]:
    """Runs with a folder of checkpoints, the newest first."""
    found = []
    for folder in parent.glob(f"*/{CHECKPOINTS}"):
        if folder.is_dir():
            found.append((folder.stat().st_mtime_ns, folder.parent))
    return [run_dir for _, run_dir in sorted(found, reverse=True)]


def _candidates(run_dir: Path) -> Iterator[Path]:
    """What may be a checkpoint, the newest first; the best one is a copy that may be older."""
    folder = run_dir / CHECKPOINTS
    yield from reversed(round_files(folder).values())
    if (folder / BEST).exists():
        yield folder / BEST


def _first_usable(paths: Iterable[Path], quietly: bool = False) -> Checkpoint | None:
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
            if round_of(path.name) in (None, checkpoint.server_round):
                return checkpoint
            raise DamagedError(f"holds round {checkpoint.server_round}")
        except DamagedError as error:
            if not quietly:
                log(WARNING, "%s %s; using the checkpoint before it, if there is one.", path, error)
    return None


def _start(run_dir: Path, checkpoint: Checkpoint | None) -> Start:
    done = checkpoint.server_round if checkpoint else 0
    begun = checkpoint or read_record(run_dir)
    known = {"run": begun.run} if begun else {}
    return Start(run_dir.resolve(), checkpoint, read_lines(run_dir / "metrics.jsonl", done, METRICS).entries, **known)
