"""Data that the tests of several packages share, drawn once per test session."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from data.sample import draw_sample

# A busy machine must not fail a test: none here is timed.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

# Threads of several processes that spin while they wait for each other make tiny networks seven times slower.
torch.set_num_threads(1)


# The files that take longest, so that `pytest -n 2 --dist loadfile` begins with them and both workers end together.
LONGEST = (
    "test_flwr_run.py", "test_deployment.py", "test_interrupted_runs.py", "test_secured_deployment.py",
    "test_methods.py", "test_experiments.py", "test_sites_alone.py", "test_gpu.py", "test_ray_cluster.py",
    "test_peers.py", "test_deploy.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Results are always those of the CPU: only `pytest -m gpu` sees a GPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if hasattr(config.option, "loadscopereorder"):  # of pytest-xdist, which would put files with few tests last
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one process quick tests first and whole runs last; with several, the longest files first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    else:
        items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """As in a terminal, whoever started the tests: a shell's background jobs, and what nohup starts, ignore some."""
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in usual}
    for number, handler in usual.items():
        if before[number] is signal.SIG_IGN:
            signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes, decoded images and the drawn sample stay out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _nothing_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation that refuses its settings ends with its process, and tests share one, in which some import it."""
    monkeypatch.setattr("simulation.refusal._refused", threading.Event())
    monkeypatch.setattr("simulation.refusal.is_simulation", lambda: False)


@pytest.fixture(scope="session")
def tiny_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of 120 noisy, 20 clean train, 12 val and 40 test images of 32 pixels."""
    out = tmp_path_factory.mktemp("sample") / "release"
    draw_sample(out, train=120, clean_train=20, val=12, test=40, image_size=32, seed=5)
    return out
