"""OrderedGrid: order of nodes and of replies, whatever the runtime does."""

import random
import threading
import time
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg, strategy_utils

from server_app.grid import OrderedGrid
from server_app.stopping import RunStoppedError
from server_app.strategy import sampling_from
from tests.fakes import InProcessGrid, partitions


def _echo(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    return Message(RecordDict({"metrics": MetricRecord({"partition": partition})}), reply_to=message)


def _ordered(grid: InProcessGrid) -> OrderedGrid:
    by_partition = sorted(grid.nodes, key=lambda node_id: grid.nodes[node_id]["partition-id"])
    return OrderedGrid(grid, by_partition)


def _partitions_of(replies: Any) -> list[int]:
    return [reply.content["metrics"]["partition"] for reply in replies]


def test_nodes_are_listed_in_partition_order_and_only_while_connected() -> None:
    grid = InProcessGrid(_echo, partitions(6))
    ordered = _ordered(grid)
    assert [grid.nodes[node_id]["partition-id"] for node_id in ordered.get_node_ids()] == [0, 1, 2, 3, 4, 5]
    gone = next(iter(ordered.get_node_ids()))
    del grid.nodes[gone]
    assert gone not in ordered.get_node_ids()


def test_replies_arrive_in_the_order_of_the_messages() -> None:
    grid = InProcessGrid(_echo, partitions(6))  # answers the last message first
    ordered = _ordered(grid)
    ids = list(ordered.get_node_ids())
    messages = [Message(RecordDict({"c": ConfigRecord()}), ids[i], MessageType.QUERY) for i in (4, 1, 5, 0)]
    assert _partitions_of(ordered.send_and_receive(messages)) == [4, 1, 5, 0]


def test_messages_leave_before_the_first_reply_is_requested() -> None:
    grid = InProcessGrid(_echo, partitions(3))
    ordered = _ordered(grid)
    ids = list(ordered.get_node_ids())
    ordered.send_and_receive([Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ids])
    assert len(grid._pending) == 3


def test_a_timeout_leaves_out_late_replies() -> None:
    class OneIsLate(InProcessGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            return [reply for reply in super().pull_messages(message_ids) if _partitions_of([reply]) != [1]]

    ordered = _ordered(OneIsLate(_echo, partitions(3)))
    messages = [Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ordered.get_node_ids()]
    started = time.monotonic()
    assert _partitions_of(ordered.send_and_receive(messages, timeout=0.3)) == [0, 2]
    assert time.monotonic() - started < 120


def test_sampling_seeds_the_global_generator_and_restores_it() -> None:
    random.seed(5)
    before = random.getstate()
    with sampling_from(1):
        first = random.sample(range(100), 5)
    assert random.getstate() == before
    assert strategy_utils.random is random  # type: ignore[attr-defined]
    with sampling_from(1):
        assert random.sample(range(100), 5) == first
    with sampling_from(2):
        assert random.sample(range(100), 5) != first


def test_what_other_threads_draw_changes_no_sample() -> None:
    """As Flower's heartbeats do, while a strategy waits for the SuperLink to list its nodes."""

    class Drawing(InProcessGrid):
        draws = 0

        def get_node_ids(self) -> Any:
            thread = threading.Thread(target=lambda: [random.uniform(0.7, 0.9) for _ in range(self.draws)])
            thread.start()
            thread.join()
            return super().get_node_ids()

    def sampled(draws: int) -> list[int]:
        Drawing.draws = draws
        grid = _ordered(Drawing(_echo, partitions(20)))
        with sampling_from(7):
            messages = FedAvg(fraction_train=0.5).configure_train(1, ArrayRecord(), ConfigRecord(), grid)
        ids = list(grid.get_node_ids())
        return [ids.index(message.metadata.dst_node_id) for message in messages]

    assert len(sampled(0)) == 10
    assert sampled(0) == sampled(1) == sampled(5)


class Restarting(InProcessGrid):
    """A remote runtime whose node `victim` is lost at its first message."""

    def __init__(self, how: str) -> None:
        super().__init__(_echo, partitions(3))
        self.how, self.victim = how, sorted(self.nodes)[1]
        self.lost = False

    def _answer(self, message: Message) -> Message | None:
        if message.metadata.dst_node_id != self.victim or self.lost:
            return super()._answer(message)
        self.lost = True
        if self.how == "restarted":
            self.started[self.victim] = "2026-01-02"
            return None
        # What a SuperLink replies in place of a node that is gone.
        reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Error: Node Unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = message.metadata.src_node_id
        return reply


@pytest.fixture
def _remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))
    monkeypatch.setattr("server_app.grid.LOST_SECONDS", 0.05)


@pytest.mark.parametrize(("remote", "first", "last"), [(False, 0.01, 0.01), (True, 0.06, 0.25)])
def test_a_simulation_is_polled_often_and_a_superlink_less_and_less(
    remote: bool, first: float, last: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(InProcessGrid):
        pulls = 0

        def pull_messages(self, message_ids: Any) -> Any:
            self.pulls += 1
            return super().pull_messages(message_ids) if self.pulls > 12 else []

    if remote:
        monkeypatch.setattr("server_app.grid.InMemoryGrid", type(None))
    grid = Late(_echo, partitions(1))
    ordered = _ordered(grid)
    pauses: list[float] = []
    monkeypatch.setattr(ordered, "pause", pauses.append)
    messages = [Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ordered.get_node_ids()]
    assert len(list(ordered.send_and_receive(messages))) == 1
    assert len(pauses) == 12
    assert pauses[0] == pytest.approx(first)
    assert pauses[-1] == last


@pytest.mark.usefixtures("_remote")
@pytest.mark.parametrize(
    ("how", "reason"),
    [("restarted", "its SuperNode was restarted while it worked"), ("gone", "its SuperNode is not connected")],
)
def test_the_reply_for_a_lost_node_is_an_error(how: str, reason: str) -> None:
    grid = Restarting(how)
    ids = sorted(grid.nodes)
    ordered = OrderedGrid(grid, ids)
    messages = [Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ids]
    replies = list(ordered.send_and_receive(messages))
    assert [reply.metadata.src_node_id for reply in replies] == ids
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert (replies[1].error.code, replies[1].error.reason) == (ErrorCode.NODE_UNAVAILABLE, reason)
    assert len(_partitions_of(ordered.send_and_receive(messages))) == 3


@pytest.mark.usefixtures("_remote")
def test_a_message_to_a_node_that_is_away_waits_for_it() -> None:
    """The SuperLink keeps it: a node's first appearance does not mean that it was restarted."""

    class Away(InProcessGrid):
        looks = 0

        def get_nodes(self) -> Any:
            self.looks += 1
            return [node for node in super().get_nodes() if self.looks > 2 or node.node_id != min(self.nodes)]

        def pull_messages(self, message_ids: Any) -> Any:
            return super().pull_messages(message_ids) if self.looks > 4 else []

    grid = Away(_echo, partitions(2))
    ids = sorted(grid.nodes)
    messages = [Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ids]
    assert len(_partitions_of(OrderedGrid(grid, ids).send_and_receive(messages))) == 2


def test_a_message_that_the_superlink_refuses_costs_that_reply() -> None:
    class Refusing(InProcessGrid):
        def push_messages(self, messages: Any) -> Any:
            _, *others = super().push_messages(messages)
            return [None, *others]

    ordered = _ordered(Refusing(_echo, partitions(3)))
    messages = [Message(RecordDict(), node_id, MessageType.QUERY) for node_id in ordered.get_node_ids()]
    first, *others = ordered.send_and_receive(messages)
    assert first.error.reason == "its SuperNode is not connected"
    assert first.metadata.src_node_id == messages[0].metadata.dst_node_id
    assert len(_partitions_of(others)) == 2


@pytest.mark.parametrize("error", [ValueError("a\nb"), TypeError(), KeyError("x"), RecursionError()])
def test_a_reply_that_flower_cannot_read_costs_that_reply(error: Exception) -> None:
    class Unreadable(InProcessGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            (reply,) = super().pull_messages(message_ids)
            if reply.metadata.src_node_id == min(self.nodes):
                raise error
            return [reply]

    ordered = _ordered(Unreadable(_echo, partitions(3)))
    replies = list(
        ordered.send_and_receive([Message(RecordDict(), one, MessageType.QUERY) for one in ordered.get_node_ids()])
    )
    (broken,) = [reply for reply in replies if reply.has_error()]
    assert str(broken.error.reason).startswith("its reply cannot be read (")
    assert str(broken.error.reason).isprintable()


def test_messages_that_the_superlink_refuses_end_the_run() -> None:
    class Refusing(InProcessGrid):
        def push_messages(self, messages: Any) -> Any:
            return []

    ordered = _ordered(Refusing(_echo, partitions(2)))
    with pytest.raises(RunStoppedError, match="the SuperLink did not accept the messages"):
        ordered.send_and_receive([Message(RecordDict(), i, MessageType.QUERY) for i in ordered.get_node_ids()])
