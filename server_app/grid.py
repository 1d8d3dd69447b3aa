"""A Grid that answers in a fixed order, so that a run does not depend on random node ids or on who finishes first."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from server_app.stopping import RunStoppedError

POLL_SECONDS = 0.05
SLOWEST_POLL_SECONDS = 0.25


class OrderedGrid(Grid):
    """Wraps the runtime's Grid.

    `get_node_ids` lists nodes by partition, and `send_and_receive` yields replies one by one in the order of the
    messages, each as soon as all before it have come.
    """

    def __init__(self, grid: Grid, node_ids: Sequence[int], interrupted: threading.Event | None = None) -> None:
        """Wrap `grid`.

        Args:
            grid: The runtime's.
            node_ids: The nodes that take part, in partition order.
            interrupted: Once it is set, waiting for replies raises RunStoppedError.
        """
        self._grid = grid
        self._node_ids = list(node_ids)
        self._interrupted = interrupted or threading.Event()

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes of the roll call that are connected now, in partition order."""
        connected = set(self._grid.get_node_ids())
        return [node_id for node_id in self._node_ids if node_id in connected]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send now, then yield replies in the order of `messages`.

        With a `timeout` in seconds, replies that have not come by then are left out.
        """
        return self._replies(list(self._grid.push_messages(messages)), timeout)

    def _replies(self, order: list[str], timeout: float | None) -> Iterator[Message]:
        deadline = None if timeout is None else time.monotonic() + timeout
        for message_id in order:
            pause = POLL_SECONDS
            # Asked for alone: replies that are early wait in the SuperLink, not in this process's memory.
            while not (arrived := list(self._grid.pull_messages([message_id]))):
                if deadline is not None and time.monotonic() > deadline:
                    break
                # Back off while nothing comes: each poll of a real SuperLink is a request over the network.
                pause = min(pause * 1.2, SLOWEST_POLL_SECONDS)
                if self._interrupted.wait(pause):
                    raise RunStoppedError("interrupted while clients were training.")
            while arrived:
                yield arrived.pop()
