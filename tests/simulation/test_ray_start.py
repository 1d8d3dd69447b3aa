"""Starting Ray: closed to the network, and one sentence where it cannot be started or joined."""

import errno
import importlib
import os
import re
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from simulation import lean_ray, ray_start


def test_a_cluster_must_answer_and_has_resources_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ray_start.check_cluster(address, {"log_to_driver": True})
        with pytest.raises(ValueError, match=f"'init-args-num-gpus' is 2, but the Ray cluster at {address} has what"):
            ray_start.check_cluster(address, {"num_gpus": 2})
    with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address} .*refused.* or unset RAY_ADDRESS"):
        ray_start.check_cluster(address, {"num_gpus": 2})
    monkeypatch.delenv("RAY_ADDRESS")  # what Ray remembers instead
    with pytest.raises(ConnectionError, match="or set RAY_ADDRESS=local and restart the SuperLink"):
        ray_start.check_cluster(address, {})


@pytest.fixture(autouse=True)
def ray_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray's settings in this process are those of its environment, before and after."""
    from ray._private import node, parameter, services

    monkeypatch.setattr(services, "resolve_ip_for_localhost", services.resolve_ip_for_localhost)
    monkeypatch.setattr(parameter, "RayParams", parameter.RayParams)
    monkeypatch.setattr(node.Node, "start_api_server", node.Node.start_api_server)
    monkeypatch.setattr(lean_ray, "_reader", lambda: None)  # what actors print is in a folder of Ray's
    with pytest.MonkeyPatch.context() as environment:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "PYTHONPATH", lean_ray.PRESTART):
            environment.setenv(name, "")  # so that what the test sets is undone
            del os.environ[name]
        yield
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    raylet.Config.initialize("")


def _start(monkeypatch: pytest.MonkeyPatch, address: str | None, problem: Exception | None = None) -> list[Any]:
    """The arguments for `ray.init`, from us, or from Flower if it joins a cluster; it raises `problem`, if any."""
    from ray._private import services

    calls: list[Any] = []

    def init(**init_args: Any) -> None:
        calls.append(init_args)
        if problem:
            raise problem

    def init_ray(backend: Any, config: dict[str, Any]) -> None:
        if address:
            init(**config["init_args"])

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address_: address)
    init_args = {} if problem else {"num_cpus": 2}
    ray_start.starting_in_one_sentence(init_ray)(None, {"init_args": init_args})
    return calls


def test_a_ray_of_its_own_is_closed(monkeypatch: pytest.MonkeyPatch, ended: list[str]) -> None:
    from ray._private import services
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    started = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": 2}
    assert _start(monkeypatch, None) == [started]
    assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert is_token_auth_enabled()
    token = os.environ["RAY_AUTH_TOKEN"]
    del os.environ["RAY_AUTH_MODE"]
    _start(monkeypatch, None)
    assert len(token) == len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert token != os.environ["RAY_AUTH_TOKEN"]  # one for each run
    assert ended == []


def test_ray_does_not_start_for_settings_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int, message: str) -> None:
        raise SystemExit(message)

    monkeypatch.setattr("flwr.supercore.exit.flwr_exit", end)
    monkeypatch.setattr(ray_start, "is_refused", lambda: True)
    with pytest.raises(SystemExit, match="its settings are refused"):
        _start(monkeypatch, None)


def test_what_the_user_sets_for_ray_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert ray_start.closed_to_the_network({"_node_ip_address": "192.0.2.1"}) == {"_node_ip_address": "192.0.2.1"}
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_cluster_is_joined_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        problem = RuntimeError("Version mismatch: Ray 1 and 2")
        calls: list[Any] = []
        monkeypatch.setattr("flwr.supercore.exit.flwr_exit", lambda code, message: calls.append(message))
        assert _start(monkeypatch, f"127.0.0.1:{server.getsockname()[1]}", problem) == [{}]
    assert calls == ["The run stopped: Version mismatch: Ray 1 and 2"]
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_cluster_that_refuses_the_token_says_so() -> None:
    refused = RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing or incorrect")
    failed = ConnectionError("Failed to connect to Ray cluster at 192.0.2.1:6379")
    failed.__cause__ = refused
    said = ray_start.why_not_joined("192.0.2.1:6379", failed)
    assert said.startswith("the Ray cluster at 192.0.2.1:6379 refuses this token, or asks for one; set RAY_AUTH_MODE=")
    failed.__cause__ = None
    assert ray_start.why_not_joined("192.0.2.1:6379", failed) == str(failed)


def test_a_cluster_that_cannot_be_joined_ends_the_run(monkeypatch: pytest.MonkeyPatch, ended: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SystemExit):
        _start(monkeypatch, f"127.0.0.1:{server.getsockname()[1]}")
    assert ended[0].startswith("The run stopped: federation config: 'init-args-num-cpus' is 2, but the Ray cluster")


TIMED_OUT = Exception("The current node timed out during startup. This could happen because the GCS is busy.")


@pytest.mark.parametrize(
    ("problem", "limits", "free", "memory", "sentence"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /x/y"), {}, 1 << 40, 1 << 40,
         r"\(AF_UNIX path length .*\); its folder must have at most 39 characters: set RAY_TMPDIR, and restart"),
        (OSError(errno.EROFS, "Read-only file system", "/odd/ray"), {}, 1 << 40, 1 << 40,
         r"\(\[Errno 30\] Read-only .*\); it must be able to write to /odd: mend that, or set RAY_TMPDIR to another"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), {}, 1 << 40, 1 << 40,
         "; the machine has no room for more processes: end some, or give it more memory"),
        (TIMED_OUT, {resource.RLIMIT_NOFILE: 64}, 1 << 40, 1 << 40,
         r"\(The current node timed out during startup.*\); only 64 files may be open at once: run `ulimit -n 65536`"),
        (TIMED_OUT, {resource.RLIMIT_AS: 1 << 30}, 1 << 40, 1 << 40,
         "; no process may have more than 1073741824 bytes of memory: run `ulimit -v unlimited`, and restart"),
        (TIMED_OUT, {}, 5 << 20, 1 << 40, "; /odd has only 5 MiB left: free some, or set RAY_TMPDIR to another folder"),
        (TIMED_OUT, {}, 1 << 40, 7 << 20, "; the machine has only 7 MiB of memory left: free some, and start the run"),
        (TIMED_OUT, {}, 1 << 40, 1 << 40, "; the machine may have been too busy .*, look into /odd/ray/session"),
    ],
)  # fmt: skip
def test_why_ray_did_not_start_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    ended: list[str],
    problem: Exception,
    limits: dict[int, int],
    free: int,
    memory: int,
    sentence: str,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/odd")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits.get(kind, resource.RLIM_INFINITY),) * 2)
    monkeypatch.setattr(ray_start, "_free_bytes", lambda folder: free)
    monkeypatch.setattr(ray_start, "memory_bytes", lambda kind: memory)
    with pytest.raises(SystemExit):
        _start(monkeypatch, None, problem)
    (text,) = ended
    assert re.match(f"The run stopped: Ray, which runs the simulated clients, did not start .*{sentence}", text)
    assert "\n" not in text
    assert text.endswith(".")


def test_paths_of_rays_sockets_are_as_long_as_assumed() -> None:
    """The longest process id has seven digits."""
    longest = "/ray/session_2026-01-31_12-00-00_123456_4194304/sockets/plasma_store"
    assert ray_start.LONGEST_FOLDER + len(longest) == 107
