"""The names of machines in a simulation on several of them."""

import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server_app.stopping import RunStoppedError
from simulation.machine import machine
from tests.fakes import run_in_process


def _cluster(monkeypatch: pytest.MonkeyPatch, machines: int) -> None:
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.2")
    driver = SimpleNamespace(get_actor_id=lambda: None)
    ray = SimpleNamespace(
        is_initialized=lambda: True, nodes=lambda: [{}] * machines, util=util, get_runtime_context=lambda: driver
    )
    monkeypatch.setitem(sys.modules, "ray", ray)


def test_a_machine_has_a_name_only_if_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert machine() == ""
    _cluster(monkeypatch, machines=1)
    assert machine() == ""
    _cluster(monkeypatch, machines=2)
    assert machine() == f"{socket.gethostname()} (10.0.0.2)"


def test_a_folder_that_one_machine_lacks_ends_the_run(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cluster(monkeypatch, machines=2)
    nodes: list[dict[str, Any]] = [
        {"partition-id": 0, "num-partitions": 2},
        {"partition-id": 1, "num-partitions": 2, "data-dir": "/nowhere"},
    ]
    sentence = re.escape(f"client 1 on {machine()}: /nowhere does not exist; it must be a folder in")
    with pytest.raises(RunStoppedError, match=sentence):
        run_in_process(tmp_path, nodes=nodes, data_dir=str(tiny_sample))
