"""Nodes that disappear in mid-round: retried if they come back, left out if they do not."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

from client_app.app import app as client_app
from tests.fakes import InProcessGrid, rounds_of, run_in_process


@pytest.fixture(autouse=True)
def _remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))


def _losing_node_of_partition_0(message: Message, context: Context) -> Message:
    """Lose it the first time that it trains."""
    if message.metadata.message_type == "train" and int(context.node_config["partition-id"]) == 0:
        server_round = message.content.config_records["config"]["server-round"]
        if server_round == 1 and not ASKED.count(0):
            ASKED.append(0)
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "its SuperNode is not connected"), reply_to=message)
    return client_app(message, context)


ASKED: list[int] = []


@pytest.mark.parametrize("returns", [True, False])
def test_a_lost_node_is_retried_if_it_comes_back_in_time(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    ASKED.clear()
    looks: list[int] = []

    def connected(grid: InProcessGrid) -> list[int]:
        """All nodes, except the lost one for a while; the first call after that is the next round's."""
        if not ASKED:
            return sorted(grid.nodes)
        looks.append(1)
        away = len(looks) < (3 if returns else 2)
        return [node for node, config in grid.nodes.items() if not (away and config["partition-id"] == 0)]

    monkeypatch.setattr(InProcessGrid, "get_node_ids", connected)
    monkeypatch.setattr("server_app.exchange.RETURN_SECONDS", 60.0 if returns else 0.0)
    run_dir = run_in_process(
        tmp_path, clients=2, handler=_losing_node_of_partition_0, data_dir=str(tiny_sample), fraction_train=1.0
    )
    first, second = rounds_of(run_dir)
    assert first["failed-partitions"] == ([] if returns else [0])
    assert first["num-examples"] == (120 if returns else 60)
    assert sorted(second["sampled-partitions"]) == [0, 1]
    assert second["failed-partitions"] == []
    failures: list[dict[str, Any]] = [
        json.loads(line) for line in (run_dir / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [failure["partition"] for failure in failures] == [0]
    assert failures[0]["reason"] == "client 0: its SuperNode is not connected."
