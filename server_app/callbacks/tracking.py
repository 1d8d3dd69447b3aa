"""Sends each round's metrics to an experiment tracker, in addition to metrics.jsonl.

TensorBoard writes its files into the run's folder. Weights & Biases and Trackio share one API: `init`, `log`, `finish`.
MLflow has a client. A resumed run continues its record. An error in a tracker is logged once and never stops the run.
"""

import contextlib
import importlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common import log

from config.run_config import ConfigError, RunConfig
from data.text import one_line
from server_app.callbacks import Callback, History, RoundResult
from server_app.callbacks.metrics_file import as_json
from server_app.callbacks.tracker_names import tracked
from server_app.early_stop import why_over

PROJECT = "clothing1m-fl"


class Tracker(Protocol):
    """What the app needs of a tracker."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def finish(self, complete: bool) -> None:
        """Called at the end; a run is `complete` after its last round, and if a rule of its config has ended it."""


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

    def finish(self, complete: bool) -> None:
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

    def finish(self, complete: bool) -> None:
        self._module.finish()


class MLflow:
    """A run named after its folder, in the experiment clothing1m-fl, in the store that `MLFLOW_TRACKING_URI` names.

    Without the variable, MLflow would write to the working directory, which is that of the SuperLink. So it is
    ``mlflow.db`` in the run's folder, where no two runs make it at once, of which MLflow's SQLite would break.
    """

    ID_FILE = "mlflow-run-id"
    BATCH = 100  # the most parameters that MLflow takes at once
    LONGEST = 6000  # characters of a parameter's value
    ODD = re.compile(r"[^/\w.\- :]")  # what MLflow refuses in a metric's name

    def __init__(self, run_dir: Path, config: RunConfig, next_round: int) -> None:
        import mlflow

        self._run_dir = run_dir
        self._own = not os.environ.get("MLFLOW_TRACKING_URI")
        if self._own and not (run_dir / self.ID_FILE).exists():
            (run_dir / "mlflow.db").unlink(missing_ok=True)  # half made, by a process that was killed
        self._client = mlflow.MlflowClient(tracking_uri=database(run_dir / "mlflow.db") if self._own else None)
        self._id = self._known() or self._new(config)
        self._client.update_run(self._id, status="RUNNING")

    def _known(self) -> str:
        """The id of the run's record; empty if there is none, such as where the store is another one now."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run((self._run_dir / self.ID_FILE).read_text(encoding="utf-8").strip())
        except (OSError, ValueError, MlflowException):
            return ""
        return str(run.info.run_id) if run.info.lifecycle_stage == "active" else ""

    def _new(self, config: RunConfig) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment(), run_name=self._run_dir.name)
        identity = str(run.info.run_id)
        (self._run_dir / self.ID_FILE).write_text(f"{identity}\n", encoding="utf-8")
        params = [Param(key, str(value)[: self.LONGEST]) for key, value in config.to_flat().items()]
        for start in range(0, len(params), self.BATCH):
            self._client.log_batch(identity, params=params[start : start + self.BATCH])
        return identity

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(PROJECT)) is None:
            artifacts = (self._run_dir / "mlartifacts").as_uri() if self._own else None  # nothing goes there
            try:
                return str(self._client.create_experiment(PROJECT, artifacts))
            except MlflowException:  # another run was faster
                if (found := self._client.get_experiment_by_name(PROJECT)) is None:
                    raise
        return str(found.experiment_id)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        batch = [Metric(self.ODD.sub("_", key), value, now, step) for key, value in metrics.items()]
        self._client.log_batch(self._id, metrics=batch)

    def finish(self, complete: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if complete else "KILLED")


def database(path: Path) -> str:
    """A file's URI as MLflow reads it, which takes ``?`` for the end of the path and ``%41`` for an A."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


# What opens a tracker before a round; `config.choices` has the same names, which are those of the packages.
TRACKERS: dict[str, Callable[[Path, RunConfig, int], Tracker | None]] = {
    "none": lambda run_dir, config, next_round: None,
    "tensorboard": TensorBoard,
    "wandb": WandbLike,
    "trackio": WandbLike,
    "mlflow": MLflow,
}


class Tracking(Callback):
    """Logs a round's single numbers under the names of `tracker_names`; the step is the round."""

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        self._run_dir, self._config = run_dir, config
        self._tracker: Tracker | None = None
        self._complete = False

    def on_start(self, history: History) -> None:
        self._complete = self._is_last(history.last_round) or bool(why_over(history.past(self._config), self._config))
        with self._never_failing():
            self._tracker = TRACKERS[self._config.tracking](self._run_dir, self._config, history.last_round + 1)

    def after_round(self, result: RoundResult) -> None:
        self._complete = self._is_last(result.server_round) or bool(result.ends)
        with self._never_failing():
            if self._tracker:
                self._tracker.log(tracked(as_json(result)), result.server_round)

    def on_end(self) -> None:
        with self._never_failing():
            if self._tracker:
                self._tracker.finish(self._complete)

    def _is_last(self, server_round: int) -> bool:
        return server_round >= self._config.num_server_rounds

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
