"""Joining a Ray cluster: what cannot go well ends at once, in one sentence."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from client_app import simulation


def test_resources_of_a_running_cluster_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="'init-args-num-gpus' is 2, but the Ray cluster at host:1 has what"):
        simulation.check_cluster("host:1", {"num_gpus": 2})


def test_an_address_where_nothing_answers_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        simulation.check_cluster(address, {"log_to_driver": True})
    with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address} .*refused"):
        simulation.check_cluster(address, {})


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process said when it ended."""
    from flwr.supercore import exit as flower

    said: list[str] = []

    def flwr_exit(code: int, message: str) -> None:
        said.append(message)
        raise SystemExit(code)

    monkeypatch.setattr(flower, "flwr_exit", flwr_exit)
    return said


def _join(monkeypatch: pytest.MonkeyPatch, address: str | None, problem: Exception | None = None) -> list[Any]:
    """What `ray.init` is called with, when it raises `problem`."""
    from ray._private import services

    calls: list[Any] = []

    def init_ray(backend: Any, config: dict[str, Any]) -> None:
        calls.append(config)
        if problem:
            raise problem

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address_: address)
    simulation.joining_in_one_sentence(init_ray)(None, {"init_args": {"num_cpus": 2}} if not problem else {})
    return calls


def test_without_a_cluster_ray_starts_as_it_is_told(monkeypatch: pytest.MonkeyPatch, ended: list[str]) -> None:
    assert _join(monkeypatch, None) == [{"init_args": {"num_cpus": 2}}]
    assert ended == []


def test_a_cluster_that_cannot_be_joined_ends_the_run(monkeypatch: pytest.MonkeyPatch, ended: list[str]) -> None:
    with pytest.raises(SystemExit):
        _join(monkeypatch, "127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SystemExit):
        _join(monkeypatch, f"127.0.0.1:{server.getsockname()[1]}", RuntimeError("Version mismatch: Ray 1 and 2"))
    assert ended[0].startswith("The run stopped: federation config: 'init-args-num-cpus' is 2, but the Ray cluster")
    assert ended[1] == "The run stopped: Version mismatch: Ray 1 and 2"


def test_clients_that_find_no_room_end_the_run_before_there_is_a_pool(
    monkeypatch: pytest.MonkeyPatch, ended: list[str]
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Resources": {"CPU": 2.0}}])
    built: list[Any] = []
    build = simulation.building_in_one_sentence(lambda backend, app_fn: built.append(app_fn))
    with pytest.raises(SystemExit):
        build(SimpleNamespace(client_resources={"num_cpus": 64, "num_gpus": 0.0}), "app")
    assert built == []
    assert ended[0].startswith("The run stopped: --federation-config: each client is to get 64 CPUs and no GPU, but")
    build(SimpleNamespace(client_resources={"num_cpus": 2, "num_gpus": 0.0}), "app")
    assert built == ["app"]
