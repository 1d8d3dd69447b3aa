"""A round between its messages and its replies."""

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message

from server_app.client_models import Outgoing
from server_app.model_check import ModelCheck
from server_app.replies import Replies
from server_app.traffic import RoundTraffic


@dataclass(frozen=True)
class Sent:
    """A round whose messages have been sent.

    Attributes:
        server_round: From 1.
        messages: As the strategy made them.
        replies: An iterator that waits for each reply.
        tally: Which of these replies were usable.
        models: Judges the models in them.
        traffic: Bytes that travel for the round, those of replies once they have arrived.
        outgoing: Clients' models in the messages, if the method sends any.
        started: By `time.perf_counter`.
        deadline: When the round continues without late replies, by `time.monotonic`.
    """

    server_round: int
    messages: list[Message]
    replies: Iterable[Message]
    tally: Replies
    models: ModelCheck
    traffic: RoundTraffic
    outgoing: Outgoing
    started: float
    deadline: float

    @property
    def sampled(self) -> list[int]:
        """The partitions of the sampled clients, in the order of the messages."""
        return [self.tally.members[message.metadata.dst_node_id].partition_id for message in self.messages]
