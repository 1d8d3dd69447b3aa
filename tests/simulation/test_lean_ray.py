"""A Ray of this machine alone: what it starts, and what is shown of what actors print."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from simulation import lean_ray

node: Any = importlib.import_module("ray._private.node")
parameter: Any = importlib.import_module("ray._private.parameter")
worker: Any = importlib.import_module("ray._private.worker")


@pytest.fixture(autouse=True)
def ray_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parameter, "RayParams", parameter.RayParams)
    monkeypatch.setattr(node.Node, "start_api_server", node.Node.start_api_server)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("PYTHONPATH", lean_ray.PRESTART):
            environment.setenv(name, "")  # so that what the test sets is undone
            del os.environ[name]
        yield


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray was started with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **init_args: calls.append(init_args))
    monkeypatch.setattr(lean_ray, "_reader", lambda: calls.append({"shows": "what actors print"}))
    return calls


def test_nothing_is_started_that_one_machine_does_not_use(started: list[dict[str, Any]]) -> None:
    lean_ray.start_lean({"num_cpus": 2})
    assert started == [{"include_dashboard": False, "num_cpus": 2}, {"shows": "what actors print"}]
    params = parameter.RayParams()
    assert params.no_monitor
    assert not params.include_log_monitor
    assert node.Node.start_api_server(SimpleNamespace(), include_dashboard=False, raise_on_failure=False) is None
    assert os.environ[lean_ray.PRESTART] == "0"
    assert os.environ["PYTHONPATH"].split(os.pathsep) == sys.path


def test_what_the_user_set_is_kept(started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lean_ray.PRESTART, "1")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    dashboard = node.Node.start_api_server
    lean_ray.start_lean({"include_dashboard": True, "log_to_driver": False})
    assert started == [{"include_dashboard": True, "log_to_driver": False}]  # and nothing is shown
    assert node.Node.start_api_server is dashboard
    assert os.environ[lean_ray.PRESTART] == "1"
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [*sys.path, "/mine"]


def test_what_an_actor_prints_is_shown_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own reader of its files, with its own lines about whose they are."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(
        node_ip_address="127.0.0.1", get_logs_dir_path=lambda: str(tmp_path)
    ))  # fmt: skip
    monkeypatch.setattr(worker.global_worker_stdstream_dispatcher, "emit", shown.append)
    monkeypatch.setattr(lean_ray, "READ_SECONDS", 0)
    file = tmp_path / "worker-0a1b2c-01000000-4242.out"
    file.write_text(":job_id:01000000\n:actor_name:ClientAppActor\nloss 0.5\n")
    rounds = iter([True, True, False])  # it reads twice, and what is new is shown once
    monkeypatch.setattr(ray, "is_initialized", lambda: next(rounds))
    reader = lean_ray._reader()
    monkeypatch.setattr(lean_ray, "_reader", lambda: reader)
    lean_ray._pass_on()
    reader._close_all_files()
    assert [(one["lines"], one["actor_name"], one["pid"], one["is_err"]) for one in shown] == [
        (["loss 0.5"], "ClientAppActor", 4242, False)
    ]
    assert shown[0]["localhost"] == shown[0]["ip"]  # or Ray's printer would name the machine


def test_a_file_that_cannot_be_read_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(lean_ray, "_reader", lambda: SimpleNamespace(update_log_filenames=fail))
    lean_ray._pass_on()
    monkeypatch.setattr(lean_ray, "_reader", fail)  # the run goes on then as well
    lean_ray._pass_on()
    assert caplog.messages == ["What clients print is no longer shown: [Errno 24] Too many open files."] * 2
