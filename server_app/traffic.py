"""How many bytes of arrays a round's messages carry: models, and arrays of a method.

They are counted as they travel, packed and rounded if the run does that (`server_app.model_transport`), from the
lengths of what is there anyway. Settings, metrics and Flower's envelopes, a few kB a message, are not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Message


@dataclass
class Traffic:
    """Of one exchange of messages.

    Attributes:
        sent: Bytes to clients; what several messages share counts for each.
        received: Bytes of the replies that arrived, usable or not.
        of_nodes: By node id, how much of both is of that node.
    """

    sent: int = 0
    received: int = 0
    of_nodes: dict[int, tuple[int, int]] = field(default_factory=dict, compare=False)

    def count_sent(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._count(message.metadata.dst_node_id, bytes_of_arrays(message), 0)

    def count_received(self, reply: Message) -> None:
        self._count(reply.metadata.src_node_id, 0, bytes_of_arrays(reply))

    def _count(self, node_id: int, sent: int, received: int) -> None:
        before = self.of_nodes.get(node_id, (0, 0))
        self.of_nodes[node_id] = before[0] + sent, before[1] + received
        self.sent += sent
        self.received += received


@dataclass(frozen=True)
class RoundTraffic:
    """Of one round.

    Attributes:
        training: Of the clients that train, those that are asked again included.
        questions: What a method asks clients before the round.
        evaluation: Federated evaluation of the round's model.
    """

    training: Traffic = field(default_factory=Traffic)
    questions: Traffic = field(default_factory=Traffic)
    evaluation: Traffic = field(default_factory=Traffic)


def bytes_of_arrays(message: Message) -> int:
    """Of all arrays in a message; 0 for an error."""
    if not message.has_content():
        return 0
    records = message.content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())


def in_words(count: int) -> str:
    """``94.4 MB``: in powers of ten, as bandwidth is."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"
