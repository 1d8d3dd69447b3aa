"""Before round 1 every node says who it is, what it holds and which code it runs."""

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
from messages.fingerprint import running_code
from server_app.grid import OrderedGrid
from server_app.stopping import RunStoppedError
from simulation.capacity import Share

PROGRESS_SECONDS = 30.0  # between two lines of a roll call that takes long


@dataclass(frozen=True)
class Member:
    """One client's answer.

    Attributes:
        node_id: Flower's name for it; random in every run.
        partition_id: Ours, from 0; stable across runs.
        num_examples: Images it trains on.
        histogram: (classes,) int64, how many of them carry each label.
        compute: Device and precision.
        data: Hash of the keys and labels that it trains on.
        own_folder: Whether it is a site with a folder of its own, and not a slice of what others hold, too.
        machine: Where it answered from, in a simulation on several machines; else empty.
        deal: Of a client with a partition: the same for all that hold parts of one partition of one list.
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
        """For a message."""
        who = f"client {self.partition_id}" if self.partition_id >= 0 else f"node {self.node_id}"
        return f"{who} on {self.machine}" if self.machine else who


def call_roll(grid: Grid, config: RunConfig, class_names: tuple[str, ...], min_nodes: int) -> list[Member]:
    """Ask all connected nodes; the members come back in partition order.

    Args:
        grid: The runtime's.
        config: Sent along, so that each client checks it against its own data.
        class_names: The server's, which every client must share.
        min_nodes: Wait until at least so many nodes are connected.

    Raises:
        RunStoppedError: A client refuses the config or its data, runs other code, knows other classes, or holds a
            partition that another one holds too; a partition is missing; or they are parts of different deals.
    """
    node_ids = _wait_for_nodes(grid, min_nodes)
    content = RecordDict({"config": ConfigRecord(dict(config.to_flat()))})
    messages = [Message(content, node_id, MessageType.QUERY) for node_id in node_ids]
    replies = _answers(OrderedGrid(grid, node_ids), messages)
    refusals = sorted(_refusal(reply) for reply in replies if reply.has_error())
    if refusals:
        others = f" [the first of {len(refusals)} refusals]" if len(refusals) > 1 else ""
        raise RunStoppedError(refusals[0] + others)
    members = [_member(reply, class_names) for reply in sorted(replies, key=_place)]
    counts = {cast(int, reply.content.metric_records["facts"]["num-partitions"]) for reply in replies}
    return _check_partitions(members, counts)


def _answers(grid: Grid, messages: list[Message]) -> list[Message]:
    """All replies; how long they took goes into the log, since thousands of nodes take minutes."""
    log(INFO, "Roll call of %d nodes.", len(messages))
    started = said = time.perf_counter()
    replies: list[Message] = []
    times: list[float] = []
    for reply in grid.send_and_receive(messages):
        replies.append(reply)
        times.append(time.perf_counter() - started)
        if started + times[-1] - said > PROGRESS_SECONDS:
            said = started + times[-1]
            log(INFO, "%d of %d nodes have answered.", len(replies), len(messages))
    if times:
        log(INFO, "All %d nodes answered within %.2f s, the first one after %.2f s.", len(times), times[-1], times[0])
    return replies


def _wait_for_nodes(grid: Grid, min_nodes: int) -> list[int]:
    said = -1
    while len(node_ids := sorted(grid.get_node_ids())) < min_nodes:
        if len(node_ids) != said:
            said = len(node_ids)
            log(INFO, "Waiting for nodes: %d connected, %d needed.", said, min_nodes)
        time.sleep(1)
    return node_ids


def _refusal(reply: Message) -> str:
    lost = reply.error.code == ErrorCode.NODE_UNAVAILABLE  # not a client's own words
    return f"node {reply.metadata.src_node_id}: {reply.error.reason}." if lost else str(reply.error.reason)


def _place(reply: Message) -> tuple[int, int]:
    return cast(int, reply.content.metric_records["facts"]["partition-id"]), reply.metadata.src_node_id


def _member(reply: Message, class_names: tuple[str, ...]) -> Member:
    facts, about = reply.content.metric_records["facts"], reply.content.config_records["about"]
    member = Member(
        node_id=reply.metadata.src_node_id,
        partition_id=cast(int, facts["partition-id"]),
        num_examples=cast(int, facts["num-examples"]),
        histogram=np.asarray(facts["label-histogram"], dtype=np.int64),
        compute=str(about["compute"]),
        machine=cast(str, about.get("machine", "")),
        deal=cast(str, about.get("deal", "")),
        data=str(about["data"]),
        own_folder=cast(int, facts["partition-id"]) < 0,
        share=Share(cast(float, about["cpus"]), cast(float, about["gpus"])) if "cpus" in about else None,
    )
    names = cast(list[str], about["class-names"])
    if about["fingerprint"] != running_code():
        raise RunStoppedError(
            f"{member.name} runs other code ({about['fingerprint']!s}) than the server ({running_code()}); stop the"
            " local SuperLink or update the node, then start the run again."
        )
    if tuple(names) != class_names:
        raise RunStoppedError(
            f"{member.name} knows the classes {', '.join(names)}; the server {', '.join(class_names)}."
        )
    return member


def _check_partitions(members: list[Member], counts: set[int]) -> list[Member]:
    """Order the members; sites with a folder of their own have no partition id and get numbers by what they hold."""
    sites = sorted((m for m in members if m.own_folder), key=lambda member: member.data)
    slices = sorted((m for m in members if not m.own_folder), key=lambda member: member.partition_id)
    if sites and slices:
        raise RunStoppedError("some nodes have a 'partition-id' and some have none; all or none must have one.")
    if sites:
        for site, next_site in itertools.pairwise(sites):
            if site.data == next_site.data:
                raise RunStoppedError(
                    f"nodes {site.node_id} and {next_site.node_id} hold the same images; each must have a 'data-dir' of"
                    " its own, or all a 'partition-id' and 'num-partitions'."
                )
        return [replace(site, partition_id=number) for number, site in enumerate(sites)]
    if len(counts) > 1:
        raise RunStoppedError(f"nodes disagree on 'num-partitions': {', '.join(map(str, sorted(counts)))}.")
    ids = [member.partition_id for member in slices]
    for one, other in itertools.pairwise(ids):
        if one == other:
            raise RunStoppedError(f"two nodes claim partition {one}; each 'partition-id' must be given once.")
    missing = sorted(set(range(counts.pop())) - set(ids))
    if missing:
        raise RunStoppedError(f"no node holds partition {missing[0]} ({len(missing)} partitions are missing).")
    for member in slices[1:]:
        if member.deal != slices[0].deal:
            raise RunStoppedError(
                f"{slices[0].name} and {member.name} do not hold parts of the same partition, so that images may be"
                " missing or held twice; their 'data-dir' must be copies of one release, a partition's file the same"
                " one, and NumPy the same version."
            )
    return slices


def roll_hash(members: list[Member]) -> str:
    """Changes when another set of images takes part, or is dealt otherwise."""
    facts = [(member.partition_id, member.num_examples, member.data) for member in members]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
