"""Before round 1, every node reports who it is, what it holds and which code it runs."""

import time
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from config.run_config import RunConfig
from messages import keys
from server_app.grid import OrderedGrid
from server_app.members import Member, in_partition_order, in_their_places
from server_app.roll_call_answers import ClassNames, Frozen, all_travel, judge, of_one_kind, refuse_sample
from server_app.stopping import RunStoppedError

PROGRESS_SECONDS = 30.0  # between two log lines of a long roll call
LATE_SECONDS = 60.0  # for the answer of a node that came later; its round waits for it
START_SECONDS = 24 * 3600.0  # to wait for the first nodes if the run sets no `round-timeout`
AGAIN_SECONDS = 600.0  # the same for a run that is resumed, which some of them may have left for good


def hold_roll_call(
    grid: Grid,
    config: RunConfig,
    class_names: ClassNames,
    strategy: Strategy,
    known: list[Member],
    frozen: Frozen,
) -> list[Member]:
    """`call_roll_again` for the members of a run that real nodes go on with, else `call_roll`."""
    least = getattr(strategy, "min_available_nodes", 1)
    if known and class_names:
        return call_roll_again(grid, config, class_names, least, known, frozen)
    return call_roll(grid, config, class_names, least, frozen)


def call_roll(
    grid: Grid, config: RunConfig, class_names: ClassNames, min_nodes: int, frozen: Frozen = all_travel
) -> list[Member]:
    """Query all connected nodes, and return the members of a new run in partition order.

    A node that refuses the config or its data, runs other code, has other classes, answers late or nonsense is left
    out, with one line in the log that says why.

    Args:
        grid: The runtime's.
        config: Sent along, so that each client checks it against its own data.
        class_names: What every client must have as well.
        min_nodes: Wait until at least this many nodes are connected; as many must take part.
        frozen: Of the server's network; every client's must be the same.

    Raises:
        RunStoppedError: Too few nodes can take part, or what they hold does not fit together.
    """
    node_ids = _wait_for_nodes(grid, min_nodes, config.round_timeout or START_SECONDS)
    if len(node_ids) < min_nodes:
        raise RunStoppedError(
            f"{len(node_ids)} nodes are connected, and 'min-available-nodes' in 'strategy-args' is {min_nodes}; connect"
            " more, or allow more time with 'round-timeout', then start the run again."
        )
    members, counts, left_out = _query(grid, config, class_names, node_ids, frozen)
    if len(members) < max(1, min_nodes):
        raise RunStoppedError(_first(left_out, f"{len(members)} of {len(node_ids)} nodes can take part"))
    try:
        members = in_partition_order(members, {counts[member.node_id] for member in members if not member.own_folder})
    except RunStoppedError:
        if left_out and not members[0].own_folder:  # each part of the data has one holder: the cause is what it said
            raise RunStoppedError(_first(left_out)) from None
        raise
    _log_left_out(left_out)
    return members


def call_roll_again(
    grid: Grid,
    config: RunConfig,
    class_names: tuple[str, ...],
    min_nodes: int,
    known: list[Member],
    frozen: Frozen = all_travel,
) -> list[Member]:
    """The same for a run that is resumed: the members `known` keep their numbers, and some of them may be away.

    Raises:
        RunStoppedError: None of them can take part.
    """
    node_ids = _wait_for_nodes(grid, min(min_nodes, len(known)), config.round_timeout or AGAIN_SECONDS)
    present, _, left_out = _query(grid, config, class_names, node_ids, frozen)
    members, strangers = in_their_places(present, known)
    left_out += [f"{one.name} does not hold what a client of this run held." for one in strangers]
    if len(strangers) == len(present):
        raise RunStoppedError(_first(left_out, f"0 of {len(node_ids)} nodes can take part"))
    _log_left_out(left_out)
    return members


def _query(
    grid: Grid, config: RunConfig, class_names: ClassNames, node_ids: list[int], frozen: Frozen
) -> tuple[list[Member], dict[int, int], list[str]]:
    """The nodes that can take part, by node id the number of partitions each has named, and why others cannot."""
    replies = _answers(OrderedGrid(grid, node_ids), roll_call_messages(node_ids, config), config.round_timeout or None)
    if config.server_lists and not config.data_dir:
        refuse_sample(config, replies)
    members, counts, left_out = judge(replies, node_ids, class_names, frozen)
    members, others = of_one_kind(members)
    return members, counts, left_out + others


def introduce(
    grid: Grid, config: RunConfig, class_names: tuple[str, ...], frozen: Frozen, node_ids: list[int]
) -> list[Member]:
    """A roll call of nodes that came later; those that cannot take part are left out, as in `call_roll`."""
    timeout = min(config.round_timeout or LATE_SECONDS, LATE_SECONDS)
    replies = OrderedGrid(grid, node_ids).send_and_receive(roll_call_messages(node_ids, config), timeout=timeout)
    members, _, left_out = judge(list(replies), node_ids, class_names, frozen)
    _log_left_out(left_out)
    return members


def _log_left_out(reasons: list[str]) -> None:
    for reason in reasons:
        log(WARNING, "Node left out: %s", reason)


def roll_call_messages(node_ids: list[int], config: RunConfig) -> list[Message]:
    content = RecordDict({keys.CONFIG: ConfigRecord(dict(config.to_flat()))})
    return [Message(content, node_id, MessageType.QUERY) for node_id in node_ids]


def _answers(grid: Grid, messages: list[Message], timeout: float | None) -> list[Message]:
    """All replies; logs how long they took, since thousands of nodes take minutes."""
    log(INFO, "Roll call of %d nodes.", len(messages))
    started = logged = time.perf_counter()
    replies: list[Message] = []
    times: list[float] = []
    for reply in grid.send_and_receive(messages, timeout=timeout):
        replies.append(reply)
        times.append(time.perf_counter() - started)
        if started + times[-1] - logged > PROGRESS_SECONDS:
            logged = started + times[-1]
            log(INFO, "%d of %d nodes have answered.", len(replies), len(messages))
    if times:
        log(INFO, "%d nodes answered within %.2f s, the first one after %.2f s.", len(times), times[-1], times[0])
    return replies


def _wait_for_nodes(grid: Grid, min_nodes: int, seconds: float) -> list[int]:
    """The connected nodes, once they are enough or the time is over."""
    logged, deadline = -1, time.monotonic() + seconds
    while len(node_ids := sorted(grid.get_node_ids())) < min_nodes and time.monotonic() < deadline:
        if len(node_ids) != logged:
            logged = len(node_ids)
            log(INFO, "Waiting for nodes: %d connected, %d needed.", logged, min_nodes)
        time.sleep(1)
    return node_ids


def _first(left_out: list[str], otherwise: str = "") -> str:
    if not left_out:
        return f"{otherwise}, too few."
    others = f" [the first of {len(left_out)} refusals]" if len(left_out) > 1 else ""
    return left_out[0] + others
