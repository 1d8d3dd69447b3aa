"""Before round 1, every node reports who it is, what it holds and which code it runs."""

import hashlib
import itertools
import time
from dataclasses import dataclass, replace
from logging import INFO
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common import log
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from config.run_config import RunConfig
from messages import keys
from messages.fingerprint import running_code
from server_app.grid import OrderedGrid
from server_app.stopping import RunStoppedError
from simulation.capacity import Share

PROGRESS_SECONDS = 30.0  # between two log lines of a long roll call


@dataclass(frozen=True)
class Member:
    """One client's answer.

    Attributes:
        node_id: Flower's id, random in every run.
        partition_id: This app's number for it, from 0; stable across runs.
        num_examples: Images that it trains on.
        histogram: (classes,) int64, how many of them carry each label.
        compute: Device and precision.
        data: Hash of the keys and labels that it trains on.
        own_folder: Whether it is a site with a folder of its own, and not a slice of a release that others also hold.
        machine: Where it answered from, in a simulation on several machines; else empty.
        deal: For a client with a partition: equal for all clients that hold parts of one partition of one list.
        share: What it was given of its machine, in a simulation.
    """

    node_id: int
    partition_id: int
    num_examples: int
    histogram: np.ndarray
    compute: str
    data: str = ""
    own_folder: bool = False
    machine: str = ""
    deal: str = ""
    share: Share | None = None

    @property
    def name(self) -> str:
        """Its name in messages to the user."""
        who = f"client {self.partition_id}" if self.partition_id >= 0 else f"node {self.node_id}"
        return f"{who} on {self.machine}" if self.machine else who


def call_roll(grid: Grid, config: RunConfig, class_names: tuple[str, ...], min_nodes: int) -> list[Member]:
    """Query all connected nodes, and return the members in partition order.

    Args:
        grid: The runtime's.
        config: Sent along, so that each client checks it against its own data.
        class_names: The server's, which every client must share.
        min_nodes: Wait until at least this many nodes are connected.

    Raises:
        RunStoppedError: A client refuses the config or its data, runs other code, has other classes, or holds a
            partition that another one also holds; a partition is missing; or the parts are from different deals.
    """
    node_ids = _wait_for_nodes(grid, min_nodes)
    content = RecordDict({keys.CONFIG: ConfigRecord(dict(config.to_flat()))})
    messages = [Message(content, node_id, MessageType.QUERY) for node_id in node_ids]
    replies = _answers(OrderedGrid(grid, node_ids), messages)
    refusals = sorted(_refusal(reply) for reply in replies if reply.has_error())
    if refusals:
        others = f" [the first of {len(refusals)} refusals]" if len(refusals) > 1 else ""
        raise RunStoppedError(refusals[0] + others)
    members = [_member(reply, class_names) for reply in sorted(replies, key=_place)]
    counts = {cast(int, reply.content.metric_records[keys.FACTS][keys.NUM_PARTITIONS]) for reply in replies}
    return _check_partitions(members, counts)


def _answers(grid: Grid, messages: list[Message]) -> list[Message]:
    """All replies; logs how long they took, since thousands of nodes take minutes."""
    log(INFO, "Roll call of %d nodes.", len(messages))
    started = logged = time.perf_counter()
    replies: list[Message] = []
    times: list[float] = []
    for reply in grid.send_and_receive(messages):
        replies.append(reply)
        times.append(time.perf_counter() - started)
        if started + times[-1] - logged > PROGRESS_SECONDS:
            logged = started + times[-1]
            log(INFO, "%d of %d nodes have answered.", len(replies), len(messages))
    if times:
        log(INFO, "All %d nodes answered within %.2f s, the first one after %.2f s.", len(times), times[-1], times[0])
    return replies


def _wait_for_nodes(grid: Grid, min_nodes: int) -> list[int]:
    logged = -1
    while len(node_ids := sorted(grid.get_node_ids())) < min_nodes:
        if len(node_ids) != logged:
            logged = len(node_ids)
            log(INFO, "Waiting for nodes: %d connected, %d needed.", logged, min_nodes)
        time.sleep(1)
    return node_ids


def _refusal(reply: Message) -> str:
    lost = reply.error.code == ErrorCode.NODE_UNAVAILABLE  # written by OrderedGrid, not by the client
    return f"node {reply.metadata.src_node_id}: {reply.error.reason}." if lost else str(reply.error.reason)


def _place(reply: Message) -> tuple[int, int]:
    return cast(int, reply.content.metric_records[keys.FACTS][keys.PARTITION_ID]), reply.metadata.src_node_id


def _member(reply: Message, class_names: tuple[str, ...]) -> Member:
    facts, about = reply.content.metric_records[keys.FACTS], reply.content.config_records[keys.ABOUT]
    member = Member(
        node_id=reply.metadata.src_node_id,
        partition_id=cast(int, facts[keys.PARTITION_ID]),
        num_examples=cast(int, facts[keys.NUM_EXAMPLES]),
        histogram=np.asarray(facts[keys.LABEL_HISTOGRAM], dtype=np.int64),
        compute=str(about[keys.COMPUTE]),
        machine=cast(str, about.get(keys.MACHINE, "")),
        deal=cast(str, about.get(keys.DEAL, "")),
        data=str(about[keys.DATA]),
        own_folder=cast(int, facts[keys.PARTITION_ID]) < 0,
        share=Share(cast(float, about[keys.CPUS]), cast(float, about[keys.GPUS])) if keys.CPUS in about else None,
    )
    names = cast(list[str], about[keys.CLASS_NAMES])
    if about[keys.FINGERPRINT] != running_code():
        raise RunStoppedError(
            f"{member.name} runs other code ({about[keys.FINGERPRINT]!s}) than the server ({running_code()}); stop the"
            " local SuperLink or update the node, then start the run again."
        )
    if tuple(names) != class_names:
        raise RunStoppedError(
            f"{member.name} has the classes {', '.join(names)}, but the server has {', '.join(class_names)}."
        )
    return member


def _check_partitions(members: list[Member], counts: set[int]) -> list[Member]:
    """Order the members; sites with a folder of their own have no partition id and are numbered by data hash."""
    sites = sorted((m for m in members if m.own_folder), key=lambda member: member.data)
    slices = sorted((m for m in members if not m.own_folder), key=lambda member: member.partition_id)
    if sites and slices:
        raise RunStoppedError("some nodes have a 'partition-id' and some have none; all or none must have one.")
    if sites:
        for site, next_site in itertools.pairwise(sites):
            if site.data == next_site.data:
                raise RunStoppedError(
                    f"nodes {site.node_id} and {next_site.node_id} hold the same images; give each its own"
                    " 'data-dir', or all of them a 'partition-id' and 'num-partitions'."
                )
        return [replace(site, partition_id=number) for number, site in enumerate(sites)]
    if len(counts) > 1:
        raise RunStoppedError(f"nodes disagree on 'num-partitions': {', '.join(map(str, sorted(counts)))}.")
    ids = [member.partition_id for member in slices]
    for one, other in itertools.pairwise(ids):
        if one == other:
            raise RunStoppedError(f"two nodes claim partition {one}; each needs its own 'partition-id'.")
    missing = sorted(set(range(counts.pop())) - set(ids))
    if missing:
        raise RunStoppedError(f"no node holds partition {missing[0]} ({len(missing)} partitions are missing).")
    for member in slices[1:]:
        if member.deal != slices[0].deal:
            raise RunStoppedError(
                f"{slices[0].name} and {member.name} do not hold parts of the same partition, so images may be missing"
                " or held twice; they need copies of one release in 'data-dir', the same partition file, and the same"
                " version of NumPy."
            )
    return slices


def roll_hash(members: list[Member]) -> str:
    """Changes when other images take part, or when they are dealt differently."""
    facts = [(member.partition_id, member.num_examples, member.data) for member in members]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
