"""Which answers to a roll call fit the server and each other, and why the others do not."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from config.run_config import ConfigError, RunConfig
from data.layout.key_files import first_difference, problem_of_names
from data.text import one_line, shown
from messages import keys
from messages.fingerprint import running_code
from server_app.expected import in_roll_call
from server_app.members import Member
from server_app.replies import problem_of_records
from server_app.stopping import RunStoppedError
from simulation.capacity import Share

ClassNames = tuple[str, ...] | None
"""The server's, in the order of their labels; None if it has no data: then those of most nodes count."""
Frozen = Callable[[tuple[str, ...]], str]
"""The hash of the network's weights that do not travel, once the classes are known."""


def all_travel(class_names: tuple[str, ...]) -> str:
    """`Frozen` of a network that travels as a whole."""
    return ""


def judge(
    replies: list[Message], node_ids: list[int], class_names: ClassNames, frozen: Frozen = all_travel
) -> tuple[list[Member], dict[int, int], list[str]]:
    """Tell the answers that fit from the others.

    Args:
        replies: At most one of each node.
        node_ids: Who was asked.
        class_names: What the members must have.
        frozen: Of the server's network.

    Returns:
        The members, by node id the number of partitions that each has named, and for each other node one sentence.

    Raises:
        RunStoppedError: The server has no classes of its own, and two groups of nodes of one size have different ones.
    """
    answers, left_out = _sound(replies)
    if class_names is None:  # no kind of node that is left out decides what the classes are
        kept, others = of_one_kind([member for member, _ in answers])
        left_out += others
        answers = [one for one in answers if one[0].own_folder is kept[0].own_folder]
    members: list[Member] = []
    counts: dict[int, int] = {}
    names = agreed(answers) if class_names is None else class_names
    digest = frozen(names) if answers else ""
    whose = "most nodes have" if class_names is None else "the server has"
    for member, content in answers:
        if problem := _difference(content, names, whose, digest):
            left_out.append(f"{member.name} {problem}.")
        else:
            members.append(replace(member, class_names=names))
            counts[member.node_id] = _partitions(content)
    silent = sorted(set(node_ids) - {reply.metadata.src_node_id for reply in replies})
    return members, counts, sorted(left_out) + [f"node {one}: no reply in time." for one in silent]


def _sound(replies: Sequence[Message]) -> tuple[list[tuple[Member, RecordDict]], list[str]]:
    """The answers that do not contradict themselves, by code like the server's, and a sentence about each other."""
    answers: list[tuple[Member, RecordDict]] = []
    left_out: list[str] = []
    expected = in_roll_call()
    for reply in replies:
        if reply.has_error():
            left_out.append(_refusal(reply))
        elif problem := problem_of_records(reply.content, expected):
            left_out.append(f"node {reply.metadata.src_node_id}: {problem}.")
        elif problem := _misfit(member := _member(reply), reply.content):
            left_out.append(f"{member.name} {problem}.")
        else:
            answers.append((member, reply.content))
    return answers, left_out


def refuse_sample(config: RunConfig, replies: Sequence[Message]) -> None:
    """Check that a server which has drawn a sample, for lack of a `data-dir`, does not judge by it what sites learn.

    Slices of a release that all share may be those of the same sample.

    Raises:
        ConfigError: Most nodes have folders of their own.
        RunStoppedError: As many have as have not.
    """
    members, _ = of_one_kind([member for member, _ in _sound(replies)[0]])
    if members and members[0].own_folder:
        raise ConfigError(
            "run config: 'data-dir' is empty, so that the server would evaluate on a synthetic sample, but"
            f" {'a node has' if len(members) == 1 else f'{len(members)} nodes have'} images of their own; name the"
            " server's release in 'data-dir', or set 'test-split' to none and 'val-split' to none, noisy or label-wave."
        )


def of_one_kind(members: list[Member]) -> tuple[list[Member], list[str]]:
    """The sites with folders of their own, or the holders of slices, whichever are more, and a sentence for each other.

    Raises:
        RunStoppedError: There are as many of both.
    """
    kinds = Counter(member.own_folder for member in members)
    if len(kinds) < 2:
        return members, []
    if kinds[True] == kinds[False]:
        raise RunStoppedError("some nodes have a 'partition-id' and some have none; all or none must have one.")
    sites = kinds[True] > kinds[False]
    why = "has a 'partition-id', unlike most nodes" if sites else "has no 'partition-id', unlike most nodes"
    return (
        [member for member in members if member.own_folder is sites],
        [f"node {member.node_id} {why}." for member in members if member.own_folder is not sites],
    )


def agreed(answers: Sequence[tuple[Member, RecordDict]]) -> tuple[str, ...]:
    """The class names that most nodes have; none if nobody has answered.

    Raises:
        RunStoppedError: As many nodes have others.
    """
    votes = Counter(_class_names(content) for _, content in answers)
    (names, most), *others = votes.most_common() or [((), 0)]
    if others and others[0][1] == most:
        one, other = sorted((names, others[0][0]))
        raise RunStoppedError(
            f"{most} {'node' if most == 1 else 'nodes'} {_other_classes(one, other, 'as many nodes have', most)}; all"
            " must have the same classes in the same order, since the server has no data that would decide."
        )
    return names


def _refusal(reply: Message) -> str:
    words = one_line(reply.error.reason, keys.LONGEST_SENTENCE)
    if reply.error.code == ErrorCode.NODE_UNAVAILABLE:  # written by OrderedGrid, not by the client
        return f"node {reply.metadata.src_node_id}: {words}."
    return words


def _member(reply: Message) -> Member:
    facts: Any = reply.content.metric_records[keys.FACTS]
    about: Any = reply.content.config_records[keys.ABOUT]
    return Member(
        node_id=reply.metadata.src_node_id,
        partition_id=int(facts[keys.PARTITION_ID]),
        num_examples=int(facts[keys.NUM_EXAMPLES]),
        histogram=np.asarray(facts[keys.LABEL_HISTOGRAM], dtype=np.int64),
        compute=about[keys.COMPUTE],
        machine=about[keys.MACHINE],
        deal=about[keys.DEAL],
        data=about[keys.DATA],
        eval_examples=int(facts[keys.EVAL_EXAMPLES]),
        held_out=int(facts.get(keys.OWN_EXAMPLES, 0)),
        own_folder=facts[keys.PARTITION_ID] < 0,
        bad_images=int(facts[keys.BAD_IMAGES]),
        first_bad=about[keys.FIRST_BAD],
        share=Share(float(about[keys.CPUS]), float(about.get(keys.GPUS, 0.0))) if keys.CPUS in about else None,
    )


def _misfit(member: Member, content: RecordDict) -> str | None:
    """Why a well-formed answer does not fit this server's code, or itself; None if it does."""
    about: Any = content.config_records[keys.ABOUT]
    if about[keys.FINGERPRINT] != running_code():
        return (
            f"runs other code ({about[keys.FINGERPRINT]}) than the server ({running_code()}); stop the local SuperLink"
            " or update the node, then start the run again"
        )
    if problem := problem_of_names(_class_names(content)):
        return f"has class names of which number {problem.rstrip('.')}"
    if (classes := len(_class_names(content))) != len(member.histogram):
        return f"has {classes} classes, but counts images of {len(member.histogram)}"
    if member.partition_id >= (count := _partitions(content)):
        return f"has a 'partition-id' of {member.partition_id}, but 'num-partitions' is {count}"
    if member.histogram.sum() != member.num_examples:
        return f"has {shown(member.num_examples)} images, but {shown(int(member.histogram.sum()))} labels"
    return None


def _difference(content: RecordDict, class_names: tuple[str, ...], whose: str, frozen: str) -> str | None:
    """What a node does not share with the others: the classes, which are `whose`, or frozen weights."""
    if (its := _class_names(content)) != class_names:
        return f"{_other_classes(its, class_names, whose)}; all must have the same classes in the same order"
    if (weights := str(content.config_records[keys.ABOUT][keys.FROZEN])) != frozen:
        theirs, ours = (one_line(one) if one else "none" for one in (weights, frozen))
        return (
            f"has other frozen weights ({theirs}) than the server ({ours}); 'pretrained', of the run or of the node,"
            " must name the same weights, and versions of torch, torchvision and timm must be the same"
        )
    return None


def _class_names(content: RecordDict) -> tuple[str, ...]:
    return tuple(content.config_records[keys.ABOUT][keys.CLASS_NAMES])  # type: ignore[arg-type]


def _partitions(content: RecordDict) -> int:
    return int(content.metric_records[keys.FACTS][keys.NUM_PARTITIONS])  # type: ignore[arg-type]


def _other_classes(its: Sequence[str], class_names: Sequence[str], whose: str, nodes: int = 1) -> str:
    """What of `its` classes is not as in others, which are `whose`; begins with the verb, for so many nodes."""
    verb = "names" if nodes == 1 else "name"
    count = f"{len(its)} class" + ("es" if len(its) != 1 else "")
    place, one, other = first_difference(its, class_names)
    if len(its) == len(class_names):
        return f"{verb} {count}; number {place} is {one}, and {whose} {other} there"
    which = f"is {one}" + (f", and not {other}" if other else "") if one else f"would be {other}"
    return f"{verb} {count}, and {whose} {len(class_names)}; number {place} {which}"
