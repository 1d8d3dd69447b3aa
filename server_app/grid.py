"""A Grid with a fixed order, so that a run does not depend on random node ids or on which client finishes first."""

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from logging import INFO
from typing import Any

from flwr.app import Error, Message
from flwr.common import log
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.superlink.grid.inmemory_grid import InMemoryGrid
from google.protobuf.message import DecodeError

from data.text import one_line, shown
from server_app.model_transport import Packing
from server_app.node_names import remember
from server_app.stopping import RunStoppedError
from server_app.traffic import Traffic

POLL_SECONDS = 0.05, 0.25  # shortest and longest pause between two requests to a SuperLink
LOCAL_POLL_SECONDS = 0.01, 0.01  # the same in a simulation, where a request takes 0.03 ms
REASON_LENGTH = 4000  # characters to keep of a client's reason; a traceback's last lines fit
PATIENCE_SECONDS = 600.0  # between two log lines about a reply that does not come
LOST_SECONDS = 5.0  # between two checks whether a node has been restarted
# What Flower raises while it decodes a reply: the message has arrived, and is not one. Errors of the connection differ.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DecodeError)
OFFLINE = "its SuperNode is not connected"
RESTARTED = "its SuperNode was restarted while it worked"


def is_remote(grid: Grid) -> bool:
    """Whether nodes are separate processes, reached over a network, and not Flower's simulation."""
    return not isinstance(grid, InMemoryGrid)


class OrderedGrid(Grid):
    """Wraps the runtime's Grid.

    `get_node_ids` lists nodes by partition, and `send_and_receive` yields replies one by one in the order of the
    messages, each as soon as all before it have arrived.
    """

    def __init__(
        self,
        grid: Grid,
        node_ids: Sequence[int],
        interrupted: threading.Event | None = None,
        *,
        packing: Packing | None = None,
    ) -> None:
        """Wrap `grid`.

        Args:
            grid: The runtime's.
            node_ids: The nodes that take part, in partition order.
            interrupted: Once it is set, waiting for replies raises RunStoppedError.
            packing: How models travel; None sends them as they are.
        """
        self._grid = grid
        self._node_ids = list(node_ids)
        self._interrupted = interrupted or threading.Event()
        self._packing = packing
        self._restarts = is_remote(grid)  # real nodes may be restarted, and then know nothing of their message
        self._waits_until = math.inf
        self._listed: set[int] | None = None  # all
        self._polls = POLL_SECONDS if self._restarts else LOCAL_POLL_SECONDS

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of the roll call that are connected now, in partition order.

        Raises:
            RunStoppedError: It is called after the end of `waiting`.
        """
        if time.monotonic() > self._waits_until or self._interrupted.is_set():
            raise RunStoppedError("the strategy waited too long for nodes that are not connected.")
        connected = set(self._grid.get_node_ids())
        if self._listed is not None:
            connected &= self._listed
        return [node_id for node_id in self._node_ids if node_id in connected]

    @contextlib.contextmanager
    def only(self, node_ids: Sequence[int]) -> Iterator[None]:
        """Meanwhile `get_node_ids` lists no others."""
        self._listed = set(node_ids)
        try:
            yield
        finally:
            self._listed = None

    def all_node_ids(self) -> Iterable[int]:
        """All nodes that are connected now, also those that were not in the roll call."""
        return self._grid.get_node_ids()

    def set_node_ids(self, node_ids: Sequence[int]) -> None:
        """Change the ids of the nodes that take part, in partition order."""
        self._node_ids = list(node_ids)

    @contextlib.contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Meanwhile `get_node_ids` gives up after so many seconds: strategies call it in a loop until it is enough."""
        self._waits_until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._waits_until = math.inf

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None, traffic: Traffic | None = None
    ) -> Iterator[Message]:
        """Send at once, then yield replies in the order of `messages`.

        For a node that is not connected, or was restarted after it received the message, the reply is an error.

        Args:
            messages: To clients.
            timeout: Seconds; replies that have not arrived by then are left out. None: no limit.
            traffic: Counts what goes out and comes back.

        Raises:
            RunStoppedError: The SuperLink accepted no message.
        """
        messages = list(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        activations = self._activations()
        outgoing = self._packing.outgoing(messages) if self._packing else messages
        ids = list(self._grid.push_messages(outgoing))
        if len(ids) < len(messages) or (ids and not any(ids)):
            raise RunStoppedError(
                "the SuperLink did not accept the messages; the cause is in the log above or in the SuperLink's own."
            )
        traffic = traffic or Traffic()
        traffic.count_sent(message for message_id, message in zip(ids, outgoing, strict=True) if message_id)
        return self._replies(list(zip(ids, messages, strict=True)), deadline, activations, traffic)

    def _replies(
        self,
        sent: list[tuple[str | None, Message]],
        deadline: float | None,
        activations: dict[int, str],
        traffic: Traffic,
    ) -> Iterator[Message]:
        for message_id, message in sent:
            if not message_id:  # its node has left for good since it was sampled
                yield _failed(message, ErrorCode.NODE_UNAVAILABLE, OFFLINE)
                continue
            # One message at a time: early replies wait in the SuperLink, not in this process's memory.
            arrived = self._wait(message_id, message, deadline, activations)
            while arrived:
                yield self._taken(arrived.pop(), message, traffic)

    def _taken(self, reply: Message, message: Message, traffic: Traffic) -> Message:
        """A reply that has arrived, counted as it travelled, then unpacked."""
        traffic.count_received(reply)
        if self._packing:
            self._packing.unpack(reply, message)
        return reply

    def _wait(
        self, message_id: str, message: Message, deadline: float | None, activations: dict[int, str]
    ) -> list[Message]:
        """The one reply, or an error in its place; empty after the deadline."""
        (pause, longest), checked = self._polls, time.monotonic()
        logged = checked
        while not (arrived := self._pull(message_id, message)):
            if deadline is not None and time.monotonic() > deadline:
                return []
            if time.monotonic() - checked > LOST_SECONDS:
                if self._was_restarted(message.metadata.dst_node_id, activations):
                    return [_failed(message, ErrorCode.NODE_UNAVAILABLE, RESTARTED)]
                checked = time.monotonic()
            if time.monotonic() - logged > PATIENCE_SECONDS:
                logged = time.monotonic()
                log(INFO, "Still waiting for node %d; 'round-timeout' can limit this.", message.metadata.dst_node_id)
            # Back off while nothing arrives: each poll of a real SuperLink is a request over the network.
            pause = min(pause * 1.2, longest)
            self.pause(pause)
        reply = arrived[0]
        if reply.metadata.src_node_id != message.metadata.dst_node_id:  # the SuperLink replies in the node's place
            error = reply.error if reply.has_error() else None
            offline = error is not None and error.code == ErrorCode.NODE_UNAVAILABLE
            return [_failed(message, ErrorCode.NODE_UNAVAILABLE, OFFLINE if offline else error and error.reason)]
        if reply.has_error():
            return [_failed(message, reply.error.code, reply.error.reason)]
        return arrived

    def _pull(self, message_id: str, message: Message) -> list[Message]:
        """The reply, if it is there; one that Flower cannot read becomes an error."""
        try:
            return list(self._grid.pull_messages([message_id]))
        except UNREADABLE as error:
            return [_failed(message, ErrorCode.MESSAGE_UNAVAILABLE, f"its reply cannot be read ({shown(str(error))})")]

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            RunStoppedError: The run was interrupted in the meantime.
        """
        if self._interrupted.wait(seconds):
            raise RunStoppedError("interrupted while clients were training.")

    def _activations(self) -> dict[int, str]:
        """When each connected node was last started, as Flower records it."""
        if not self._restarts:
            return {}
        nodes = list(self._grid.get_nodes())
        remember(nodes)
        return {node.node_id: node.last_activated_at for node in nodes}

    def _was_restarted(self, node_id: int, activations: dict[int, str]) -> bool:
        """Whether the node was restarted after `activations` were read.

        A node that was not connected then is judged from its first appearance: its message waits in the SuperLink.
        """
        now = self._activations().get(node_id)
        return now is not None and activations.setdefault(node_id, now) != now


def _failed(message: Message, code: int, reason: Any) -> Message:
    """The reply of a client that has none; its words are cut to one printable line, whoever reads them next."""
    return Message(Error(code, one_line(reason, REASON_LENGTH)), reply_to=message)
