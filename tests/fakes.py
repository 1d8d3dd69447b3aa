"""A Grid that runs the real ClientApp in this process, so that whole runs can be tested without Ray."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from client_app.app import app as client_app
from config.run_config import RunConfig
from server_app.app import app as server_app

Handler = Callable[[Message, Context], Message | None]


def instruction(message_type: str = MessageType.TRAIN, node_id: int = 1) -> Message:
    """A message as the SuperLink would deliver it."""
    _identify()
    message = Message(RecordDict({"config": ConfigRecord()}), node_id, message_type)
    message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
    return message


def _identify() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


class InProcessGrid(InMemoryGrid):
    """Nodes with scattered ids and partitions in another order, like the simulation's.

    When one reply is pulled, all messages are answered, the last first, to show that nothing depends on who finishes
    first. A handler that returns None is a client that never answers.
    """

    def __init__(
        self, handler: Handler, node_configs: list[dict[str, Any]], overrides: dict[str, Any] | None = None
    ) -> None:
        _identify()
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

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
            self._pending[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        while self._pending:
            message_id, message = self._pending.popitem()
            if (reply := self._answer(message)) is not None:
                self._answered[message_id] = reply
        return [self._answered.pop(message_id) for message_id in message_ids if message_id in self._answered]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        ids = list(self.push_messages(messages))
        return self.pull_messages(ids)

    def _answer(self, message: Message) -> Message | None:
        node_id = message.metadata.dst_node_id
        context = Context(1, node_id, self.nodes[node_id], RecordDict(), {})
        return self._handler(message, context)


def record(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def train_reply(arrays: Mapping[str, Any], num_examples: int = 1, loss: float = 1.0) -> Message:
    """What a client answers to a train message."""
    metrics = MetricRecord({"num-examples": num_examples, "train-loss": loss})
    return Message(RecordDict({"arrays": record(arrays), "metrics": metrics}), reply_to=instruction())


def one_round(
    strategy: Strategy, arrays: Mapping[str, Any], replies: Iterable[Message], server_round: int = 1
) -> dict[str, np.ndarray]:
    """The new global arrays after `arrays` were sent and `replies` came back."""
    grid = InProcessGrid(client_app, partitions(2))
    strategy.configure_train(server_round, record(arrays), ConfigRecord(), grid)
    new, metrics = strategy.aggregate_train(server_round, iter(replies))
    assert new is not None
    assert metrics is not None
    return {name: array.numpy() for name, array in new.items()}


def partitions(count: int) -> list[dict[str, Any]]:
    """Node configs of a simulation with `count` nodes, in an order of their own."""
    return [{"partition-id": (index * 7 + 3) % count, "num-partitions": count} for index in range(count)]


SMALL = {"model": "resnet18", "image-size": 32, "batch-size": 8, "precision": "fp32", "num-server-rounds": 2}


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


class CutOffError(BaseException):
    """Stands for a kill: nothing in the app catches it."""


def cut_off_in(train_message: int) -> Callable[[Message, Context], Message]:
    """A client that is killed, and the whole run with it, at the nth training message."""
    left = [train_message]

    def handler(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            left[0] -= 1
            if left[0] == 0:
                raise CutOffError
        return client_app(message, context)

    return handler


# What two runs alike need not share, of each line in metrics.jsonl.
TIMES = (
    "seconds", "slowest-client-seconds", "slowest-training-seconds", "evaluation-seconds", "images-per-second",
)  # fmt: skip


def outcome_of(run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """What must not depend on kills, actors or the runtime: metrics without times, and weights."""
    rounds = [{key: value for key, value in entry.items() if key not in TIMES} for entry in rounds_of(run_dir)]
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    return rounds, {name: value.tobytes() for name, value in weights.items()}


def rounds_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
