"""Trackers: what they receive, also after a resume, and that they cannot stop a run."""

import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.run_config import ConfigError, RunConfig
from server_app.callbacks.tracking import check_tracking
from tests.fakes import rounds_of, run_in_process


def _scalars(run_dir: Path) -> set[str]:
    """What has a single number in every line of metrics.jsonl."""
    lines = rounds_of(run_dir)
    found = {key for key in lines[0] if all(isinstance(line[key], (int, float)) for line in lines)}
    found.discard("clients")  # of the run, not of a round
    assert {"round", "test-accuracy", "val-loss", "macro-f1", "train-loss", "seconds"} <= found
    return found


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
    for (_, metrics), line in zip(tracker.logged, rounds_of(run_dir), strict=True):
        assert set(metrics) == _scalars(run_dir)
        assert all(metrics[key] == line[key] for key in metrics)


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
    assert set(read.Tags()["scalars"]) == _scalars(run_dir)
    events = read.Scalars("test-loss")
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
    assert second.keys() - first.keys() == {"test-accuracy", "test-loss", "val-accuracy", "val-loss", "macro-f1"}
