"""Which replies of a message exchange can be used, and why the others cannot."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.common.constant import ErrorCode

from messages import keys
from messages.arrays import all_finite, as_numpy
from server_app.roll_call import Member


@dataclass
class Replies:
    """Passes on the usable replies of one message exchange, and keeps a tally of all of them.

    Attributes:
        members: By node id.
        reference: The arrays that a reply must match in names and shapes; None if replies carry none.
        on_failure: Called with partition and reason of each reply that is left out.
        metrics: By partition, those of usable replies: numbers and lists of numbers.
        failures: By partition, why there is no usable reply; removed if one arrives later.
        refused: Partitions that refused, and would refuse again.
        lost: Nodes that were away and lost their message; they may come back.
    """

    members: dict[int, Member]
    reference: ArrayRecord | None
    on_failure: Callable[[int, str], None] = lambda partition, reason: None
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    _kinds: dict[str, int | None] = field(default_factory=dict, init=False)

    def good(self, replies: Iterable[Message], asked: Sequence[int]) -> Iterator[Message]:
        """Those of the `replies` from the nodes `asked` that are usable."""
        silent = [self.members[node_id].partition_id for node_id in asked]
        for reply in replies:
            member = self.members[reply.metadata.src_node_id]
            silent.remove(member.partition_id)
            if reply.has_error():
                problem: str | None = str(reply.error.reason)
                if reply.error.code == ErrorCode.NODE_UNAVAILABLE:  # written by OrderedGrid, not by the client
                    problem = f"client {member.partition_id}: {problem}."
                    self.lost.add(member.node_id)
            elif problem := self._problem(reply.content, member):
                problem = f"client {member.partition_id}: {problem}"
            if problem:
                self._fail(member.partition_id, problem)
                if not reply.has_error():
                    for arrays in reply.content.array_records.values():
                        arrays.clear()  # it is part of reference cycles, see `take_arrays`
                elif reply.error.code == keys.REFUSED:
                    self.refused.add(member.partition_id)
                continue
            record = next(iter(reply.content.metric_records.values()))
            self.metrics[member.partition_id] = dict(record)
            self.failures.pop(member.partition_id, None)
            yield reply
        for partition in silent:
            self._fail(partition, f"client {partition}: no reply in time.")

    def _fail(self, partition: int, reason: str) -> None:
        self.failures[partition] = reason
        log(WARNING, "Reply left out: %s", reason)
        self.on_failure(partition, reason)

    def _problem(self, content: RecordDict, member: Member) -> str | None:
        """Why this reply must not reach the strategy, or None."""
        records = list(content.metric_records.values())
        if len(records) != 1:
            return f"it carries {len(records)} metric records; it must be 1."
        if problem := self._problem_of_metrics(records[0]):
            return problem
        weight = records[0][keys.NUM_EXAMPLES]
        if self.reference is None:
            return None
        if weight > member.num_examples:  # type: ignore[operator]
            return f"'num-examples' is {weight!r}, but it holds {member.num_examples} images."
        if list(content.array_records) != [keys.ARRAYS]:
            return f"it carries {len(content.array_records)} array records; it must be 1, called 'arrays'."
        arrays = content.array_records[keys.ARRAYS]
        if different := sorted(arrays.keys() ^ self.reference.keys()):
            return f"its arrays are not those of the model ({different[0]!r})."
        problems = (problem_of_array(name, arrays[name], like) for name, like in self.reference.items())
        return next(filter(None, problems), None)

    def _problem_of_metrics(self, record: MetricRecord) -> str | None:
        weight = record.get(keys.NUM_EXAMPLES)
        if not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            return f"'num-examples' is {weight!r}; it must be a number above 0."
        if self.reference is not None and keys.TRAIN_LOSS not in record:
            return "its metrics lack 'train-loss'."
        for key, value in record.items():
            if not all(abs(one) <= sys.float_info.max for one in (value if isinstance(value, list) else [value])):
                return f"{key!r} is {value!r}; it must be finite."
        # Flower's averaging expects the same metrics in every reply.
        kinds = {key: len(value) if isinstance(value, list) else None for key, value in record.items()}
        self._kinds = self._kinds or kinds
        if different := sorted(key for key, _ in kinds.items() ^ self._kinds.items()):
            return f"its metrics are not those of the other replies ({different[0]!r})."
        return None


def problem_of_array(name: str, array: Array, like: Array) -> str | None:
    """Why `array` cannot replace `like`, or None; what its metadata claims is ignored."""
    try:
        value = as_numpy(array)
    except ValueError as error:
        return f"{name!r} cannot be read: {error}."
    if value.dtype != like.dtype:
        return f"{name!r} is {value.dtype}, not {like.dtype}."
    if value.shape != tuple(like.shape):
        return f"{name!r} has shape {value.shape}, not {tuple(like.shape)}."
    if not all_finite(value):
        return f"{name!r} holds a value that is not finite."
    return None
