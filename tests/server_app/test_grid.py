"""OrderedGrid: order of nodes and of replies, whatever the runtime does."""

import random
import time
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict

from server_app.grid import OrderedGrid
from server_app.rounds import sampling_from
from tests.fakes import InProcessGrid, partitions


def _echo(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    return Message(RecordDict({"metrics": MetricRecord({"partition": partition})}), reply_to=message)


def _ordered(grid: InProcessGrid) -> OrderedGrid:
    by_partition = sorted(grid.nodes, key=lambda node_id: grid.nodes[node_id]["partition-id"])
    return OrderedGrid(grid, by_partition)


def _partitions_of(replies: Any) -> list[int]:
    return [reply.content["metrics"]["partition"] for reply in replies]


def test_nodes_come_in_partition_order_and_only_while_connected() -> None:
    grid = InProcessGrid(_echo, partitions(6))
    ordered = _ordered(grid)
    assert [grid.nodes[node_id]["partition-id"] for node_id in ordered.get_node_ids()] == [0, 1, 2, 3, 4, 5]
    gone = next(iter(ordered.get_node_ids()))
    del grid.nodes[gone]
    assert gone not in ordered.get_node_ids()


def test_replies_come_in_the_order_of_the_messages() -> None:
    grid = InProcessGrid(_echo, partitions(6))  # answers the last message first
    ordered = _ordered(grid)
    ids = list(ordered.get_node_ids())
    messages = [Message(RecordDict({"c": ConfigRecord()}), ids[i], MessageType.QUERY) for i in (4, 1, 5, 0)]
    assert _partitions_of(ordered.send_and_receive(messages)) == [4, 1, 5, 0]


def test_messages_leave_before_the_first_reply_is_asked_for() -> None:
    grid = InProcessGrid(_echo, partitions(3))
    ordered = _ordered(grid)
    ids = list(ordered.get_node_ids())
    ordered.send_and_receive([Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ids])
    assert len(grid._pending) == 3


def test_a_timeout_leaves_out_what_has_not_come() -> None:
    class OneIsLate(InProcessGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            return [reply for reply in super().pull_messages(message_ids) if _partitions_of([reply]) != [1]]

    ordered = _ordered(OneIsLate(_echo, partitions(3)))
    messages = [Message(RecordDict({"c": ConfigRecord()}), i, MessageType.QUERY) for i in ordered.get_node_ids()]
    started = time.monotonic()
    assert _partitions_of(ordered.send_and_receive(messages, timeout=0.3)) == [0, 2]
    assert time.monotonic() - started < 5


def test_sampling_lends_the_global_generator_and_puts_it_back() -> None:
    random.seed(5)
    before = random.getstate()
    with sampling_from(1):
        first = random.sample(range(100), 5)
    assert random.getstate() == before
    with sampling_from(1):
        assert random.sample(range(100), 5) == first
    with sampling_from(2):
        assert random.sample(range(100), 5) != first
