"""Whole runs, and single visits, of the real ServerApp and ClientApp in this process, without Ray."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from client_app.app import app as client_app
from config.run_config import RunConfig, Value
from server_app.start import app as server_app

Handler = Callable[[Message, Context], Message | None]


def identify() -> None:
    """Without a SuperLink, nothing else tells which run and node messages belong to."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def answer_alone(config: Mapping[str, Value], arrays: ArrayRecord) -> Message:
    """What the only client of a federation answers to one train message."""
    identify()
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({**config, "server-round": 1})})
    content["visit"] = ConfigRecord({"run": "alone", "state-dir": config.get("state-dir", "")})
    message = Message(content, 1, MessageType.TRAIN)
    message.metadata.__dict__["_message_id"] = "visit"
    return client_app(message, Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {}))


class InProcessGrid(InMemoryGrid):
    """Nodes with scattered ids and partitions in another order, like the simulation's.

    When one reply is pulled, all messages are answered, the last first, to show that nothing depends on who finishes
    first. A handler that returns None is a client that never answers.
    """

    def __init__(
        self, handler: Handler, node_configs: list[dict[str, Any]], overrides: dict[str, Any] | None = None
    ) -> None:
        identify()
        self._handler = handler
        self._run = replace(Run.create_empty(1), override_config=overrides or {})
        # Multiplying by an odd number modulo a power of two scatters ids without repeating any.
        self.nodes = {(index * 40503 + 7) % 65536: config for index, config in enumerate(node_configs)}
        self.started = dict.fromkeys(self.nodes, "2026-01-01")
        self._pending: dict[str, Message] = {}
        self._answered: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        self._run = run

    @property
    def run(self) -> Any:
        return self._run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return sorted(self.nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node_id, last_activated_at=self.started[node_id]) for node_id in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
            self._pending[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        while self._pending:
            message_id, message = self._pending.popitem()
            if (reply := self._answer(message)) is not None:
                self._answered[message_id] = reply
        return [self._answered.pop(message_id) for message_id in message_ids if message_id in self._answered]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        ids = list(self.push_messages(messages))
        return self.pull_messages(ids)

    def _answer(self, message: Message) -> Message | None:
        node_id = message.metadata.dst_node_id
        context = Context(1, node_id, self.nodes[node_id], RecordDict(), {})
        return self._handler(message, context)


def partitions(count: int) -> list[dict[str, Any]]:
    """Node configs of a simulation with `count` nodes, in an order of their own."""
    return [{"partition-id": (index * 7 + 3) % count, "num-partitions": count} for index in range(count)]


SMALL = {
    "model": "resnet18", "image-size": 32, "stem": "imagenet", "batch-size": 8, "precision": "fp32",
    "num-server-rounds": 2,
}  # fmt: skip


def run_in_process(
    out: Path,
    clients: int = 4,
    handler: Handler | None = None,
    nodes: list[dict[str, Any]] | None = None,
    **overrides: Any,
) -> Path:
    """A whole run of the real ServerApp and ClientApp; returns its folder."""
    values = {**SMALL, "output-dir": str(out), "run-name": "run", "fraction-train": 0.5, **overrides}
    values = {key.replace("_", "-"): value for key, value in values.items()}
    grid = InProcessGrid(handler or client_app, nodes or partitions(clients), values)
    server_app(grid, Context(1, 1, {}, RecordDict(), {**RunConfig().to_flat(), **values}))
    return out / str(values["run-name"])
