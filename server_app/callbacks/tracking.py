"""Sends each round's metrics to an experiment tracker, in addition to metrics.jsonl.

TensorBoard writes its files into the run's folder. Weights & Biases and Trackio share one API: `init`, `log`, `finish`.
A resumed run continues its record. An error in a tracker is logged once and never stops the run.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common import log

from config.run_config import ConfigError, RunConfig
from data.text import one_line
from server_app.callbacks import Callback, History, RoundResult
from server_app.callbacks.metrics_file import as_json

PROJECT = "clothing1m-fl"


class Tracker(Protocol):
    """What the app needs of a tracker."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class TensorBoard:
    """Event files in ``<run folder>/tensorboard``; after a resume, later events hide those of repeated rounds."""

    def __init__(self, run_dir: Path, config: RunConfig, next_round: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=next_round)
        lines = (f"{key} = {value!r}" for key, value in config.to_flat().items())
        self._writer.add_text("config", "\n\n".join(lines), next_round - 1)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


class WandbLike:
    """A run named after its folder, in the project clothing1m-fl; the tracker's own settings decide where it goes."""

    def __init__(self, run_dir: Path, config: RunConfig, next_round: int) -> None:
        package = config.tracking
        self._module: Any = importlib.import_module(package)
        # Trackio resumes a run by its name, Weights & Biases by its id.
        identity = {"id": run_dir.name, "dir": str(run_dir)} if package == "wandb" else {}
        self._module.init(project=PROJECT, name=run_dir.name, config=config.to_flat(), resume="allow", **identity)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._module.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._module.finish()


# What opens a tracker before a round; `config.choices` has the same names, which are those of the packages.
TRACKERS: dict[str, Callable[[Path, RunConfig, int], Tracker | None]] = {
    "none": lambda run_dir, config, next_round: None,
    "tensorboard": TensorBoard,
    "wandb": WandbLike,
    "trackio": WandbLike,
}


class Tracking(Callback):
    """Logs a round's scalars under their names in metrics.jsonl; the step is the round."""

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        self._run_dir, self._config = run_dir, config
        self._tracker: Tracker | None = None

    def on_start(self, history: History) -> None:
        with self._never_failing():
            self._tracker = TRACKERS[self._config.tracking](self._run_dir, self._config, history.last_round + 1)

    def after_round(self, result: RoundResult) -> None:
        with self._never_failing():
            if self._tracker:
                numbers = {key: value for key, value in as_json(result).items() if isinstance(value, (int, float))}
                self._tracker.log(numbers, result.server_round)

    def on_end(self) -> None:
        with self._never_failing():
            if self._tracker:
                self._tracker.finish()

    @contextlib.contextmanager
    def _never_failing(self) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:  # third-party code on top of a network
            self._tracker = None
            why = one_line(f"{type(error).__name__}: {error}").rstrip(".")
            log(WARNING, "%s stopped tracking this run: %s. metrics.jsonl continues.", self._config.tracking, why)


def check_tracking(config: RunConfig) -> None:
    """Check before anything is computed that the tracker is installed.

    Raises:
        ConfigError: The tracker is not installed.
    """
    package = config.tracking
    if package == "none":
        return
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"run config: 'tracking' is {config.tracking!r}, but it cannot be imported ({error}); `pip install"
            f" {package}` where the server runs, or choose one of {', '.join(TRACKERS)}."
        ) from None
