"""Trackers: what they receive, also after a resume, and that they cannot stop a run."""

import logging
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest

from config.run_config import ConfigError, RunConfig
from server_app.callbacks import History, tracker_names, tracking
from server_app.callbacks.tracker_names import tracked_name
from server_app.callbacks.tracking import check_tracking
from server_app.over_clients import SPREAD
from tests.fakes import rounds_of, run_in_process


def _scalars(run_dir: Path) -> dict[str, list[float]]:
    """By its name in trackers, what has a single number in every line of metrics.jsonl, round by round."""
    lines = rounds_of(run_dir)
    found = {key for key in lines[0] if all(isinstance(line[key], (int, float)) for line in lines)}
    found -= {"round", "clients"}  # the step, and what is of the run
    assert {"test-accuracy", "val-loss", "macro-f1", "train-loss", "seconds"} <= found
    return {tracked_name(key): [line[key] for line in lines] for key in found}


@pytest.fixture(params=["wandb", "trackio"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package with the API that both share, which records its calls."""
    fake: Any = types.ModuleType(request.param)
    fake.calls, fake.logged = [], []
    fake.init = lambda **kwargs: fake.calls.append(("init", kwargs))
    fake.log = lambda metrics, step: fake.logged.append((step, metrics))
    fake.finish = lambda: fake.calls.append(("finish", {}))
    monkeypatch.setitem(sys.modules, request.param, fake)
    return fake


def test_a_run_and_its_resume_share_one_record(tmp_path: Path, tiny_sample: Path, tracker: Any) -> None:
    values: dict[str, Any] = {"data_dir": str(tiny_sample), "tracking": tracker.__name__}
    run_dir = run_in_process(tmp_path, num_server_rounds=1, **values)
    run_in_process(tmp_path, num_server_rounds=2, resume=str(run_dir), **values)
    assert [name for name, _ in tracker.calls] == ["init", "finish", "init", "finish"]
    first, second = (kwargs for name, kwargs in tracker.calls if name == "init")
    assert first["name"] == second["name"] == "run"
    assert first["resume"] == "allow"
    assert first.get("id") == ("run" if tracker.__name__ == "wandb" else None)
    assert first["config"]["num-server-rounds"] == 1
    assert [step for step, _ in tracker.logged] == [1, 2]
    found = _scalars(run_dir)
    for number, (_, metrics) in enumerate(tracker.logged):
        assert metrics == {name: values[number] for name, values in found.items()}


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_dropped(
    tmp_path: Path, tiny_sample: Path, tracker: Any, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    setattr(tracker, broken, failing)
    logging.getLogger("flwr").propagate = True
    with caplog.at_level("WARNING"):
        run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), tracking=tracker.__name__)
    assert len(rounds_of(run_dir)) == 2
    warnings = [message for message in caplog.messages if "no route to host" in message]
    assert warnings == [
        f"{tracker.__name__} stopped tracking this run: OSError: no route to host. metrics.jsonl continues."
    ]


def test_a_tracker_that_leaves_or_talks_in_colours_is_one_line(
    tmp_path: Path, tiny_sample: Path, tracker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def leaves(**_: Any) -> None:
        sys.exit("\x1b[31mnot logged in\x1b[0m\ntry again")

    tracker.init = leaves
    with caplog.at_level("WARNING", "flwr"):
        run_dir = run_in_process(tmp_path, data_dir=str(tiny_sample), tracking=tracker.__name__, num_server_rounds=1)
    assert len(rounds_of(run_dir)) == 1
    assert (
        f"{tracker.__name__} stopped tracking this run: SystemExit: ?[31mnot logged in?[0m | try again."
        " metrics.jsonl continues." in caplog.messages
    )


def test_tensorboard_has_each_round_once_after_a_resume(tmp_path: Path, tiny_sample: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[str, Any] = {"data_dir": str(tiny_sample), "tracking": "tensorboard"}
    run_dir = run_in_process(tmp_path, num_server_rounds=2, **values)
    (run_dir / "checkpoints" / "round-00002.safetensors").unlink()
    run_in_process(tmp_path, num_server_rounds=3, resume=str(run_dir), **values)
    read = EventAccumulator(str(run_dir / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == set(_scalars(run_dir))
    events = read.Scalars("test/loss")
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx([line["test-loss"] for line in rounds_of(run_dir)])


def test_a_missing_package_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(
        ConfigError, match=r"'tracking' is 'trackio', but it cannot be imported .* `pip install trackio`"
    ):
        check_tracking(RunConfig(tracking="trackio"))
    check_tracking(RunConfig())


def test_a_round_that_is_not_evaluated_has_no_accuracy(tmp_path: Path, tiny_sample: Path, tracker: Any) -> None:
    values: dict[str, Any] = {"data_dir": str(tiny_sample), "tracking": tracker.__name__, "evaluate_every": 2}
    run_in_process(tmp_path, num_server_rounds=2, **values)
    (_, first), (_, second) = tracker.logged
    assert second.keys() - first.keys() == {"test/accuracy", "test/loss", "test/macro-f1", "val/accuracy", "val/loss"}


def _mlflow_runs(uri: str) -> tuple[Any, list[Any]]:
    """A client, and the runs of the experiment."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(tracking.PROJECT)
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


@pytest.fixture
def quiet_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("quiet_mlflow")
def test_mlflow_has_a_run_and_its_resume_in_one_record(tmp_path: Path, tiny_sample: Path) -> None:
    runs = tmp_path / "odd %41? runs"
    values: dict[str, Any] = {"data_dir": str(tiny_sample), "tracking": "mlflow"}
    run_dir = run_in_process(runs, num_server_rounds=1, **values)
    client, (first,) = _mlflow_runs(tracking.database(run_dir / "mlflow.db"))
    assert first.info.run_id == (run_dir / "mlflow-run-id").read_text().strip()
    assert (first.info.run_name, first.info.status) == ("run", "FINISHED")
    assert first.data.params["num-server-rounds"] == "1"
    assert first.data.params.keys() == RunConfig().to_flat().keys()
    run_in_process(runs, num_server_rounds=2, resume=str(run_dir), **values)
    _, (second,) = _mlflow_runs(tracking.database(run_dir / "mlflow.db"))
    assert second.info.run_id == first.info.run_id
    assert second.info.status == "FINISHED"
    assert second.data.params == first.data.params
    found = _scalars(run_dir)
    assert second.data.metrics.keys() == found.keys()
    for name, numbers in found.items():
        history = client.get_metric_history(second.info.run_id, name)
        assert [entry.step for entry in history] == [1, 2]
        assert [entry.value for entry in history] == pytest.approx(numbers)


@pytest.mark.usefixtures("quiet_mlflow")
def test_mlflow_goes_where_its_own_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := tracking.database(tmp_path / "own.db"))
    (run_dir := tmp_path / "runs" / "one").mkdir(parents=True)
    (run_dir / "mlflow-run-id").write_text("of another store\n")
    config = RunConfig(num_server_rounds=3, method_args="x" * 7000)
    record = tracking.MLflow(run_dir, config, 1)
    record.log({"other/odd (100 %)": 1.5}, 2)
    record.finish(complete=False)
    client, (found,) = _mlflow_runs(uri)
    assert found.info.status == "KILLED"
    assert found.data.metrics == {"other/odd _100 __": 1.5}
    assert found.data.params["method-args"] == "x" * 6000
    client.delete_run(found.info.run_id)
    assert not (run_dir / "mlflow.db").exists()
    tracking.MLflow(run_dir, config, 4).finish(complete=True)
    _, (other,) = _mlflow_runs(uri)
    assert other.info.run_id != found.info.run_id
    assert other.info.status == "FINISHED"


@pytest.mark.usefixtures("quiet_mlflow")
def test_a_database_that_a_kill_left_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("half")
    tracking.MLflow(tmp_path, RunConfig(), 1).finish(complete=True)
    assert len(_mlflow_runs(tracking.database(tmp_path / "mlflow.db"))[1]) == 1


def test_every_key_of_the_page_is_sent_under_the_name_that_the_page_says() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "metrics.md").read_text(encoding="utf-8")
    rows = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    said: dict[str, str] = {}
    for keys, names, *_ in rows:
        found, sent = (re.findall(r"`([^`]+)`", cell) for cell in (keys, names))
        assert len(sent) in (0, len(found)), keys
        said.update(zip(found, sent or [""] * len(found), strict=True))
    assert {key: name for key, name in said.items() if name} == tracker_names.NAMES
    # lists, tables, texts, what is of the run, and the step
    assert {key for key, name in said.items() if not name} == {
        "round", "per-class-recall", "confusion-matrix", "sampled-partitions", "failed-partitions", "clients",
        "flower-run", *(f"{name}-percentiles" for name in SPREAD),
    }  # fmt: skip
    assert len(set(said.values()) - {""}) == len(tracker_names.NAMES)


def test_metrics_of_your_own_have_a_group() -> None:
    line = {"round": 3, "mine": 1, "a/b": 2.0, "test-loss": None, "per-class-recall": [1.0], "macro-f1": 0.5}
    assert tracker_names.tracked(line) == {"other/mine": 1, "a/b": 2.0, "test/macro-f1": 0.5}


@pytest.mark.parametrize(("done", "complete"), [(0, False), (1, False), (2, True)])
def test_a_tracker_hears_whether_the_last_round_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int, complete: bool
) -> None:
    heard: list[bool] = []

    class Hears:
        def log(self, metrics: Mapping[str, float], step: int) -> None: ...

        def finish(self, complete: bool) -> None:
            heard.append(complete)

    monkeypatch.setitem(tracking.TRACKERS, "wandb", lambda run_dir, config, next_round: Hears())
    resumed = tracking.Tracking(tmp_path, RunConfig(tracking="wandb", num_server_rounds=2))
    resumed.on_start(History(last_round=done))
    resumed.on_end()
    assert heard == [complete]
    line = {"round": 1, "test-accuracy": 0.5, "val-accuracy": 0.6, "seconds": 1.0}
    reached = tracking.Tracking(tmp_path, RunConfig(tracking="wandb", num_server_rounds=2, target_accuracy=0.6))
    reached.on_start(History(last_round=1, metrics=[line]))
    reached.on_end()
    assert heard == [complete, True]


def test_a_run_that_a_rule_ends_is_complete(tmp_path: Path, tiny_sample: Path, tracker: Any) -> None:
    heard: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking.WandbLike, "finish", lambda self, complete: heard.append(complete))
        values: dict[str, Any] = {"data_dir": str(tiny_sample), "tracking": tracker.__name__}
        run_dir = run_in_process(tmp_path, model="resnet18", num_server_rounds=3, target_accuracy=0.001, **values)
    assert len(rounds_of(run_dir)) < 3
    assert heard == [True]
