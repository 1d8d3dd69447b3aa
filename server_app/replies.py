"""Which replies of a message exchange can be used, and why the others cannot.

All replies to all kinds of messages pass here. What each must hold is known before it arrives (`server_app.expected`),
so that no reply decides about another, whatever their order.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import WARNING
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.common.constant import ErrorCode

from data.text import one_line, shown
from learning.schema import problem_of
from messages import keys
from messages.arrays import as_numpy, take_arrays
from server_app.expected import Beside, Records
from server_app.grid import REASON_LENGTH
from server_app.members import Member
from server_app.model_check import ModelCheck
from server_app.stopping import RunStoppedError

HEADLINE = 300  # characters of a reason in the log; failures.jsonl has more
PLACE = re.compile(r'File "(?:[^"]*/)?([^"/]+)", line (\d+)')  # in a traceback: the file's name and the line


@dataclass
class Replies:
    """Passes on the usable replies of one message exchange, and keeps a tally of all of them.

    Attributes:
        members: By node id, those who were asked.
        expected: By node id, what each of their replies must hold.
        models: Judges the model in each reply; None if replies carry none.
        beside: By node id, the arrays of the method that its reply must hold beside the model.
        on_failure: Called with partition and reason of each reply that is left out.
        stops_on_damage: Whether a client that refuses because of a damaged image ends the run; for clients of our own.
        metrics: By partition, those of usable replies in the order of arrival: numbers and lists of numbers.
        arrays: Likewise the arrays of the method, which no strategy gets to see.
        shared: The metrics that a strategy gets to see, by name: Flower's want the same ones in all replies. None: all.
        failures: By partition, why there is no usable reply; removed if one arrives later.
        refused: Partitions that refused, or whose reply was refused, and would be again.
        lost: Nodes that were away and lost their message; they may come back.
    """

    members: Mapping[int, Member]
    expected: Mapping[int, Records]
    models: ModelCheck | None = None
    beside: Mapping[int, Beside] = field(default_factory=dict)
    on_failure: Callable[[int, str], None] = lambda partition, reason: None
    stops_on_damage: bool = False
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    shared: frozenset[str] | None = None
    failures: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)

    @property
    def reports(self) -> dict[int, dict[str, Any]]:
        """By partition, the metrics of each usable reply, and `IMAGES`."""
        images = {member.partition_id: member.num_examples for member in self.members.values()}
        return {client: {**found, keys.IMAGES: images[client]} for client, found in self.metrics.items()}

    def good(self, replies: Iterable[Message], asked: Iterable[int] | None = None) -> Iterator[Message]:
        """Those of the `replies` that are usable.

        Args:
            replies: At most one of each node.
            asked: The nodes that should reply; None: all of them.

        Raises:
            RunStoppedError: See `stops_on_damage`.
        """
        silent = [self.members[node_id].partition_id for node_id in (self.members if asked is None else asked)]
        for reply in replies:
            member = self.members[reply.metadata.src_node_id]
            silent.remove(member.partition_id)
            if problem := self._problem(reply, member):
                self.leave_out(member.partition_id, problem)
                if self.stops_on_damage and reply.has_error() and reply.error.code == keys.DAMAGED:
                    raise RunStoppedError(problem)
                if reply.has_content():
                    for arrays in reply.content.array_records.values():
                        arrays.clear()  # it is part of reference cycles, see `take_arrays`
                continue
            metrics = cast(MetricRecord, reply.content[keys.METRICS])
            self.metrics[member.partition_id] = dict(metrics)
            for name in [] if self.shared is None else [name for name in metrics if name not in self.shared]:
                del metrics[name]
            if self.beside.get(member.node_id):
                record = cast(ArrayRecord, reply.content.pop(keys.METHOD_ARRAYS))
                self.arrays[member.partition_id] = {name: np.array(one) for name, one in take_arrays(record).items()}
            self.failures.pop(member.partition_id, None)
            yield reply
        for partition in silent:
            self.leave_out(partition, f"client {partition}: no reply in time.")

    def sort(self, partitions: Iterable[int]) -> None:
        """Put what usable replies hold into this order, so that no sum tells which had to be asked for twice."""
        order = list(partitions)
        self.metrics = {partition: self.metrics[partition] for partition in order if partition in self.metrics}
        self.arrays = {partition: self.arrays[partition] for partition in order if partition in self.arrays}

    def leave_out(self, partition: int, reason: str) -> None:
        """Count a reply as not usable, and say so."""
        self.failures[partition] = reason
        self.metrics.pop(partition, None)
        self.arrays.pop(partition, None)
        headline = one_line(reason.partition(" | ")[0], HEADLINE)
        log(WARNING, "Reply left out: %s", headline)
        self.on_failure(partition, reason)

    def refuse(self, partition: int, problem: str) -> None:
        """Leave out a reply that was usable by itself, and would not be better a second time."""
        self.refused.add(partition)
        self.leave_out(partition, f"client {partition}: {problem}.")

    def _problem_of_error(self, reply: Message, member: Member) -> str:
        if reply.error.code == ErrorCode.NODE_UNAVAILABLE:  # written by OrderedGrid, not by the client
            self.lost.add(member.node_id)
        elif reply.error.code in (keys.REFUSED, keys.DAMAGED):
            self.refused.add(member.partition_id)
        where, words = words_of(reply)
        return f"client {member.partition_id}{where}: {words}"

    def _problem(self, reply: Message, member: Member) -> str | None:
        """Why this reply must not reach the strategy, or None."""
        if reply.has_error():
            return self._problem_of_error(reply, member)
        content = reply.content
        beside = self.beside.get(member.node_id, {})
        with_model = self.models is not None
        problem = problem_of_records(content, self.expected[member.node_id], with_model=with_model, beside=beside)
        if problem is None and self.models is not None:
            problem = self.models.problem(member.partition_id, cast(ArrayRecord, content[keys.ARRAYS]))
        return f"client {member.partition_id}: {problem}." if problem else None


def words_of(reply: Message) -> tuple[str, str]:
    """What an error reply says about where it comes from (" on <machine>", or nothing), and the reason: one sentence,
    or the last lines of a traceback, on one line.
    """
    reason = one_line(reply.error.reason, REASON_LENGTH)
    introduction = re.match(r"client \d+( on [^:]{1,200})?: ", reason)  # as it calls itself
    where = introduction[1] or "" if introduction else ""
    words = reason[introduction.end() :] if introduction else reason
    return where, words if words.endswith((".", "!", "?", "]")) or " | " in words else f"{words}."


def in_a_sentence(reason: str) -> str:
    """Why a reply was left out, with no more of a traceback than where it ends."""
    headline, _, rest = reason.partition(" | ")
    if not (places := PLACE.findall(rest)):
        return reason
    file, line = places[-1]
    return f"{headline.rstrip('.')} ({file}, line {line}); failures.jsonl has the traceback."


def problem_of_records(
    content: RecordDict, expected: Records, *, with_model: bool = False, beside: Beside = MappingProxyType({})
) -> str | None:
    """The first thing in a reply that is not as `expected`, as part of a sentence; None if all is.

    Args:
        content: Its records.
        expected: The rules for those that hold numbers and texts.
        with_model: Whether there must be a record of arrays as well.
        beside: The rules for those of the method; none: there must be no such record.
    """
    names = {*expected, keys.ARRAYS} if with_model else {*expected}
    names |= {keys.METHOD_ARRAYS} if beside else set()
    for name in sorted(names - content.keys()):
        return f"it has no record {name!r}"
    for name in content.keys() - names:
        return f"its record {shown(name)} is not among those that are expected"
    if with_model and not isinstance(content[keys.ARRAYS], ArrayRecord):
        return f"its record {keys.ARRAYS!r} holds no arrays"
    for name, schema in expected.items():
        record = content[name]
        if not isinstance(record, MetricRecord if name != keys.ABOUT else ConfigRecord):
            return f"its record {name!r} is of another kind"
        if problem := problem_of(record, schema):
            return problem
    return problem_of_arrays(content[keys.METHOD_ARRAYS], beside) if beside else None


def problem_of_arrays(record: Any, beside: Beside) -> str | None:
    """The first thing in a method's arrays that is not as announced, as part of a sentence; None if all is."""
    if not isinstance(record, ArrayRecord):
        return f"its record {keys.METHOD_ARRAYS!r} holds no arrays"
    if different := record.keys() ^ beside.keys():
        return f"the arrays in its record {keys.METHOD_ARRAYS!r} are not those of the method ({shown(min(different))})"
    for name, rule in beside.items():
        array = record[name]
        try:
            value = as_numpy(array)
        except ValueError as error:
            return f"{name!r} cannot be read: {error}"
        if problem := rule.problem(value):
            return f"{name!r} {problem}"
        if array.dtype != str(value.dtype) or tuple(array.shape) != value.shape:
            return f"{name!r} claims to be {shown(array.dtype)} of shape {shown(tuple(array.shape))}, which it is not"
    return None
