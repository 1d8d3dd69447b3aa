"""Clients that leave and come back: rounds wait for them a while, and go on without them or stop with a sentence."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from client_app.app import app as client_app
from config.run_config import RunConfig
from data.sample import draw_sample
from server_app import roll_call
from server_app.attendance import Attendance
from server_app.checkpoint_file import load_checkpoint
from server_app.grid import OrderedGrid
from server_app.members import Member, known_members
from server_app.stopping import RunStoppedError
from server_app.strategy import make_strategy
from tests.fakes import InProcessGrid, partitions, rounds_of, run_in_process

MINIMA = "min-available-nodes=3 min-train-nodes=2"


@pytest.fixture(autouse=True)
def _real_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a network, and with clocks that run a hundred times faster."""
    monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))
    monkeypatch.setattr(OrderedGrid, "pause", lambda grid, seconds: None)
    monkeypatch.setattr("server_app.attendance.RETURN_SECONDS", 0.3)
    monkeypatch.setattr("server_app.attendance.ALONE_SECONDS", 0.6)
    monkeypatch.setattr("server_app.roll_call.AGAIN_SECONDS", 0.3)


class Leaving:
    """Clients of which some are away in some rounds; `away` maps a round to partitions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, away: dict[int, set[int]]) -> None:
        self.now: set[int] = set()
        self.looks = 0
        monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda grid: self._connected(grid))
        self._away = away

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            self.now = self._away.get(int(message.content.config_records["config"]["server-round"]) + 1, set())  # type: ignore[arg-type]
        reply: Message = client_app(message, context)
        return reply

    def _connected(self, grid: InProcessGrid) -> list[int]:
        self.looks += 1
        return [node for node, config in sorted(grid.nodes.items()) if config["partition-id"] not in self.now]


def _run(out: Path, sample: Path, handler: Any, **values: Any) -> Path:
    settings: dict[str, Any] = {
        "clients": 3, "fraction_train": 1.0, "num_server_rounds": 4, "model": "cnn", "image_size": 16,
        "strategy": "fedavg", "strategy_args": MINIMA, **values,
    }  # fmt: skip
    return run_in_process(out, handler=handler, data_dir=str(sample), **settings)


def test_rounds_go_on_without_a_client_that_has_left_and_with_it_once_it_is_back(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run_dir = _run(tmp_path, tiny_sample, Leaving(monkeypatch, {2: {1}, 3: {1}}))
    assert [sorted(entry["sampled-partitions"]) for entry in rounds_of(run_dir)] == [
        [0, 1, 2],
        [0, 2],
        [0, 2],
        [0, 1, 2],
    ]
    assert not (run_dir / "failures.jsonl").exists()
    assert caplog.messages.count("Waiting up to 0.3 s for clients: 2 connected, 3 needed.") == 1  # in round 3 no more
    assert caplog.messages.count("Round 2 goes on without clients that are not connected: 1.") == 1


@pytest.mark.parametrize("fraction_evaluate", [0.0, 1.0])
def test_too_few_clients_stop_the_run_and_it_can_be_resumed(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, fraction_evaluate: float
) -> None:
    settings: dict[str, Any] = {"fraction_evaluate": fraction_evaluate}
    sentence = "round 3: 1 of 3 clients are connected, and 2 are needed; start their nodes again, then resume this run."
    with pytest.raises(RunStoppedError, match=sentence):
        _run(tmp_path, tiny_sample, Leaving(monkeypatch, {3: {0, 2}}), **settings)
    monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda grid: sorted(grid.nodes))
    run_dir = _run(tmp_path, tiny_sample, client_app, resume="auto", **settings)
    assert [entry["round"] for entry in rounds_of(run_dir)] == [1, 2, 3, 4]


@pytest.mark.parametrize("minimum", ["min-train-nodes", "min-evaluate-nodes", "min-available-nodes"])
def test_no_more_clients_are_needed_than_there_are(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture, minimum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if minimum == "min-available-nodes":  # the roll call waits for these
        monkeypatch.setattr(roll_call, "START_SECONDS", 0.0)
        with pytest.raises(
            RunStoppedError, match="3 nodes are connected, and 'min-available-nodes' in 'strategy-args' is 7; connect"
        ):
            _run(tmp_path, tiny_sample, client_app, strategy_args=f"{minimum}=7")
        return
    settings: dict[str, Any] = {"strategy_args": f"{minimum}=7", "num_server_rounds": 1, "fraction_evaluate": 1.0}
    run_dir = _run(tmp_path, tiny_sample, client_app, **settings)
    assert len(rounds_of(run_dir)[0]["sampled-partitions"]) == 3
    warned = "'min-train-nodes' is 7, but there are 3 clients: all train." in caplog.messages
    assert warned == (minimum == "min-train-nodes")


def test_a_strategy_of_ones_own_cannot_wait_for_ever(tiny_sample: Path) -> None:
    grid = OrderedGrid(InProcessGrid(client_app, partitions(2)), [7, 40510])
    with grid.waiting(0.05), pytest.raises(RunStoppedError, match="the strategy waited too long for nodes"):
        while len(list(grid.get_node_ids())) < 3:
            pass
    assert list(grid.get_node_ids()) == [7, 40510]


def _returning(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> Any:
    """The node of partition 1 is gone after round 1, and another one, with a changed config, is there from round 3."""
    monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda grid: sorted(grid.nodes))
    grids: list[InProcessGrid] = []
    monkeypatch.setattr(InProcessGrid, "pull_messages", _noting(grids, InProcessGrid.pull_messages))

    def handler(message: Message, context: Context) -> Message:
        (grid,) = grids
        if message.metadata.message_type == "train":
            server_round = message.content.config_records["config"]["server-round"]
            old = next((node for node, config in grid.nodes.items() if config["partition-id"] == 1), None)
            if server_round == 1 and old is not None and len(grid.nodes) == 3 and message.metadata.dst_node_id != old:
                gone.update(grid.nodes.pop(old))
            elif server_round == 2 and gone:
                change(gone)
                grid.nodes[99_999], grid.started[99_999] = dict(gone), "2026-01-02"
                gone.clear()
        reply: Message = client_app(message, context)
        return reply

    gone: dict[str, Any] = {}
    return handler


def _noting(grids: list[InProcessGrid], pull: Any) -> Any:
    def pulling(grid: InProcessGrid, message_ids: Any) -> Any:
        grids[:] = [grid]
        return pull(grid, message_ids)

    return pulling


def test_a_node_that_comes_back_under_another_id_gets_its_place_back(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(InProcessGrid, "_answer", _unless_gone(InProcessGrid._answer))
    with caplog.at_level(logging.INFO):
        handler = _returning(monkeypatch, lambda config: None)
        run_dir = _run(tmp_path, tiny_sample, handler, strategy_args="", round_timeout=0.2)
    assert "Client 1 is back, as node 99999." in caplog.messages
    assert [len(entry["sampled-partitions"]) for entry in rounds_of(run_dir)][2:] == [3, 3]
    assert 1 in rounds_of(run_dir)[3]["sampled-partitions"]
    assert rounds_of(run_dir)[3]["failed-partitions"] == []


def _unless_gone(answer: Any) -> Any:
    def answering(grid: InProcessGrid, message: Message) -> Any:
        return answer(grid, message) if message.metadata.dst_node_id in grid.nodes else None

    return answering


def test_a_node_with_other_images_takes_no_part(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(InProcessGrid, "_answer", _unless_gone(InProcessGrid._answer))
    handler = _returning(monkeypatch, lambda config: config.update({"partition-id": 0}))
    run_dir = _run(tmp_path, tiny_sample, handler, strategy_args="", round_timeout=0.2)
    assert "Node 99999 takes no part: it does not hold what a missing client held." in " ".join(caplog.messages)
    assert all(1 not in entry["sampled-partitions"] for entry in rounds_of(run_dir)[2:])


def test_minima_are_those_of_the_strategy_inside_a_private_one() -> None:
    config = RunConfig(
        strategy="fedavg",
        strategy_args="min-train-nodes=5",
        privacy="server-fixed",
        privacy_args="noise-multiplier=0 clipping-norm=1",
    )
    strategy: Any = make_strategy(config)
    grid = InProcessGrid(client_app, partitions(2))
    members = [replace(MEMBER, node_id=node_id, partition_id=number) for number, node_id in enumerate(grid.nodes)]
    attendance = Attendance(OrderedGrid(grid, list(grid.nodes)), members, strategy)
    attendance.gather(1)
    with attendance.sampling():
        assert strategy.strategy.min_train_nodes == 2
    assert strategy.strategy.min_train_nodes == 5


MEMBER = Member(0, 0, 10, None, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("own_folders", [True, False])
def test_a_run_resumes_without_a_client_that_has_left(
    tmp_path: Path, tiny_sample: Path, caplog: pytest.LogCaptureFixture, own_folders: bool
) -> None:
    """Its place stays its own: the others keep their numbers, their random streams and their states."""
    sites = [tmp_path / f"site-{number}" for number in range(3)]
    for number, site in enumerate(sites):
        draw_sample(site, train=30, clean_train=4, val=4, test=4, image_size=32, seed=number)
    nodes = [{"data-dir": str(site)} for site in sites] if own_folders else partitions(3)
    settings: dict[str, Any] = {"method": "elr", "state_dir": str(tmp_path / "state")}
    run_dir = _run(tmp_path, tiny_sample, client_app, nodes=nodes, num_server_rounds=1, **settings)
    numbers = {member.data: member.partition_id for member in _known(run_dir)}
    with caplog.at_level(logging.INFO):
        _run(tmp_path, tiny_sample, client_app, nodes=nodes[1:], num_server_rounds=2, resume="auto", **settings)
    left = [entry["sampled-partitions"] for entry in rounds_of(run_dir)][1]
    assert len(left) == 2
    (missing,) = {0, 1, 2} - set(left)
    assert f"Round 2 goes on without clients that are not connected: {missing}." in caplog.messages
    assert {member.data: member.partition_id for member in _known(run_dir)} == numbers
    assert not any("lost its state" in line for line in caplog.messages)

    _run(tmp_path, tiny_sample, client_app, nodes=nodes, num_server_rounds=3, resume="auto", **settings)
    assert sorted(rounds_of(run_dir)[2]["sampled-partitions"]) == [0, 1, 2]
    with pytest.raises(RunStoppedError, match="does not hold what a client of this run held"):
        stranger = [{"data-dir": str(tiny_sample)}]
        _run(tmp_path, tiny_sample, client_app, nodes=stranger, num_server_rounds=4, resume="auto", **settings)


def _known(run_dir: Path) -> list[Member]:
    newest = sorted((run_dir / "checkpoints").glob("round-*.safetensors"))[-1]
    return known_members(load_checkpoint(newest).roll)


def test_what_is_not_a_roll_has_no_members() -> None:
    assert known_members("0" * 64) == known_members("[[1]]") == known_members("7") == []


def test_the_failures_of_one_run_are_json(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InProcessGrid, "_answer", _unless_gone(InProcessGrid._answer))
    run_dir = _run(
        tmp_path, tiny_sample, _returning(monkeypatch, lambda config: None), strategy_args="", round_timeout=0.2
    )
    for line in (run_dir / "failures.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["reason"] == "client 1: no reply in time."
