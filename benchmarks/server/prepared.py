"""Clients that have already trained: a Grid that answers each message with a prepared reply.

Only the server is measured with it. Both contenders get the same Grid.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from torch import nn

from benchmarks.tools.in_process import InProcessGrid, identify
from learning.evaluation import Evaluation
from messages import keys
from server_app.clean_sets import CleanSet
from server_app.members import Member
from task import build_model

CLASSES = 14
EXAMPLES = 100  # that each client trained on
ARRIVALS = ("at once", "in order", "reversed")

MakeReply = Callable[[Message], Message]


def network(name: str) -> nn.Module:
    """A torchvision ResNet, or `tiny`: two dense layers with 2,542 parameters."""
    if name == "tiny":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, CLASSES))
    return build_model(name, CLASSES, seed=1)


def model_arrays(name: str) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in network(name).state_dict().items()}


def record_of(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


def members_of(clients: int) -> list[Member]:
    return [
        Member(1 + number, number, EXAMPLES, np.full(CLASSES, EXAMPLES // CLASSES), "") for number in range(clients)
    ]


def reply_to(message: Message, arrays: ArrayRecord) -> Message:
    metrics = MetricRecord(
        {
            keys.NUM_EXAMPLES: EXAMPLES,
            keys.TRAIN_LOSS: 1.0,
            keys.EPOCH_LOSSES: [1.0],
            keys.IMAGES_SEEN: EXAMPLES,
            keys.TRAIN_SECONDS: 1.0,
            keys.VISIT_SECONDS: 1.0,
        }
    )
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


class WireReplies:
    """Parses each reply from the bytes of a protobuf message, and counts the seconds that this takes."""

    def __init__(self, arrays: ArrayRecord) -> None:
        identify()
        question = Message(RecordDict(), 1, "train")
        question.metadata.__dict__["_message_id"] = "question"
        self._wire = message_to_proto(reply_to(question, arrays)).SerializeToString()
        self.seconds = 0.0

    def __call__(self, message: Message) -> Message:
        start = time.perf_counter()
        reply = message_from_proto(ProtoMessage.FromString(self._wire))
        reply.metadata.__dict__["_reply_to_message_id"] = message.metadata.message_id
        reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
        self.seconds += time.perf_counter() - start
        return reply


@dataclass(frozen=True)
class FileReplies:
    """Reads each reply's arrays from a file: fresh bytes as after parsing, without the memory that parsing takes.

    Attributes:
        path: The serialised arrays, one after the other.
        parts: Name, dtype, shape, kind of serialisation, and bytes of each.
    """

    path: Path
    parts: tuple[tuple[str, str, tuple[int, ...], str, int], ...]

    @classmethod
    def write(cls, path: Path, arrays: ArrayRecord) -> "FileReplies":
        path.write_bytes(b"".join(array.data for array in arrays.values()))
        parts = [(name, a.dtype, tuple(a.shape), a.stype, len(a.data)) for name, a in arrays.items()]
        return cls(path, tuple(parts))

    @property
    def model_bytes(self) -> int:
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for _, dtype, shape, _, _ in self.parts)

    def arrays(self) -> ArrayRecord:
        with self.path.open("rb", buffering=0) as file:
            return ArrayRecord(
                {name: Array(dtype, shape, kind, file.read(length)) for name, dtype, shape, kind, length in self.parts},
                keep_input=False,
            )

    def __call__(self, message: Message) -> Message:
        return reply_to(message, self.arrays())


class Unevaluated(CleanSet):
    """Stands in for a clean list; evaluates nothing."""

    def __init__(self) -> None:
        self._result = Evaluation(0.0, np.eye(CLASSES, dtype=np.int64))

    def evaluate(self, arrays: ArrayRecord) -> Evaluation:
        return self._result


class PreparedGrid(InProcessGrid):
    """Answers when pulled, and keeps nothing.

    Attributes:
        arrival: When replies can be pulled. ``at once``: all from the start. ``in order``, ``reversed``: one more at
            each pull, the first message's first or the last one's first.
    """

    def __init__(self, clients: int, make_reply: MakeReply, arrival: str = "at once") -> None:
        super().__init__(lambda message, _: make_reply(message), [{} for _ in range(clients)])
        self.nodes = {member.node_id: {} for member in members_of(clients)}
        self.arrival = arrival
        self._on_its_way: list[str] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = super().push_messages(messages)
        if self.arrival != "at once":
            self._on_its_way = ids[::-1] if self.arrival == "in order" else list(ids)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if self._on_its_way:
            self._on_its_way.pop()
        ready = [key for key in message_ids if key in self._pending and key not in self._on_its_way]
        return [reply for key in ready if (reply := self._answer(self._pending.pop(key)))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """As Flower's in-memory Grid does it: all replies in one list."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting:
            arrived = self.pull_messages(waiting)
            replies.extend(arrived)
            waiting.difference_update(reply.metadata.reply_to_message_id for reply in arrived)
        return replies
