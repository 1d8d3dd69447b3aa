"""Which replies of a message exchange can be used, and why not the others."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import WARNING

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.common import log

from config import REFUSED
from server_app.roll_call import Member


@dataclass
class Replies:
    """Passes the good replies of one message exchange on and keeps the books on all of them.

    Attributes:
        members: By node id.
        reference: The arrays that a reply must match in names and shapes; None if it carries none.
        on_failure: Told partition and reason of each reply that is left out.
        metrics: By partition, of the good replies.
        failures: By partition, why there is no good reply; a good one later takes it out.
        hopeless: Partitions that refused, and would refuse again.
    """

    members: dict[int, Member]
    reference: ArrayRecord | None
    on_failure: Callable[[int, str], None] = lambda partition, reason: None
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    hopeless: set[int] = field(default_factory=set)

    def good(self, replies: Iterable[Message], asked: Sequence[int]) -> Iterator[Message]:
        """The usable ones of the `replies` to messages to the nodes `asked`."""
        silent = [self.members[node_id].partition_id for node_id in asked]
        for reply in replies:
            member = self.members[reply.metadata.src_node_id]
            silent.remove(member.partition_id)
            problem = str(reply.error.reason) if reply.has_error() else self._problem(reply, member)
            if problem:
                self._fail(member.partition_id, problem)
                if reply.has_error() and reply.error.code == REFUSED:
                    self.hopeless.add(member.partition_id)
                continue
            record = next(iter(reply.content.metric_records.values()))
            self.metrics[member.partition_id] = {
                key: value for key, value in record.items() if isinstance(value, (int, float))
            }
            self.failures.pop(member.partition_id, None)
            yield reply
        for partition in silent:
            self._fail(partition, f"client {partition}: no reply in time.")

    def _fail(self, partition: int, reason: str) -> None:
        self.failures[partition] = reason
        log(WARNING, "A reply is left out: %s", reason)
        self.on_failure(partition, reason)

    def _problem(self, reply: Message, member: Member) -> str | None:
        """Why this reply must not reach the strategy, or None."""
        who = f"client {member.partition_id}"
        metrics = next(iter(reply.content.metric_records.values()), MetricRecord())
        weight = metrics.get("num-examples")
        if not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            return f"{who}: 'num-examples' is {weight!r}; it must be a number above 0."
        if self.reference is None:
            return None
        if weight > member.num_examples:
            return f"{who}: 'num-examples' is {weight!r}; it holds {member.num_examples} images."
        arrays = reply.content.array_records.get("arrays", ArrayRecord())
        if arrays.keys() != self.reference.keys():
            return f"{who}: its arrays are not those of the model."
        for name, array in arrays.items():
            if tuple(array.shape) != tuple(self.reference[name].shape):
                return f"{who}: {name!r} has shape {tuple(array.shape)}, not {tuple(self.reference[name].shape)}."
            if not np.isfinite(array.numpy()).all():
                return f"{who}: {name!r} holds a value that is not finite."
        return None
