"""The clients of a run, as they introduced themselves, and whether together they hold all of the data once."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from config.run_config import ConfigError, RunConfig
from server_app.stopping import RunStoppedError
from simulation.capacity import Share

AWAY = "away"  # instead of a device, for a member that is not connected


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
        eval_examples: Images that it evaluates on; 0 without federated evaluation.
        held_out: Images of its own that it never trains on.
        own_folder: Whether it is a site with a folder of its own, and not a slice of a release that others also hold.
        machine: Where it answered from, in a simulation on several machines; else empty.
        deal: For a client with a partition: equal for all clients that hold parts of one partition of one list.
        share: What it was given of its machine, in a simulation.
        bad_images: How many images it leaves out because they cannot be read.
        first_bad: A sentence about the first of them.
        class_names: In the order of their labels, the same for all members; empty for one that is away.
    """

    node_id: int
    partition_id: int
    num_examples: int
    histogram: np.ndarray
    compute: str
    data: str = ""
    eval_examples: int = 0
    own_folder: bool = False
    machine: str = ""
    deal: str = ""
    share: Share | None = None
    bad_images: int = 0
    first_bad: str = ""
    held_out: int = 0
    class_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in messages to the user."""
        who = f"client {self.partition_id}" if self.partition_id >= 0 else f"node {self.node_id}"
        return f"{who} on {self.machine}" if self.machine else who


def check_number(config: RunConfig, clients: int, where: str) -> None:
    """Check that there are as many clients as `num-clients` says, so that a repeated run is the same again.

    Raises:
        ConfigError: There are more or fewer; `where` says how to change that.
    """
    if config.num_clients not in (0, clients):
        raise ConfigError(
            f"run config: 'num-clients' is {config.num_clients}, but there are {clients} clients; {where}, or set"
            " num-clients=0."
        )


def in_partition_order(members: list[Member], counts: set[int]) -> list[Member]:
    """Order the members; sites with a folder of their own have no partition id and are numbered by data hash.

    Args:
        members: At least one.
        counts: The numbers of partitions that those with a partition named.

    Raises:
        RunStoppedError: A partition is missing or held twice, or the parts are not from one deal.
    """
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
    if missing := counts.pop() - len(ids):
        first = next(number for number, held in enumerate([*ids, None]) if held != number)
        raise RunStoppedError(f"no node holds partition {first} ({missing} partitions are missing).")
    for member in slices[1:]:
        if member.deal != slices[0].deal:
            raise RunStoppedError(
                f"{slices[0].name} and {member.name} do not hold parts of the same partition, so images may be missing"
                " or held twice; they need copies of one release in 'data-dir', the same partition file, and the same"
                " version of NumPy."
            )
    return slices


def identity(member: Member) -> tuple[Any, ...]:
    """What a client cannot change during a run; a site's number is not part of it."""
    place = -1 if member.own_folder else member.partition_id
    return place, member.data, member.num_examples, member.eval_examples, member.deal


def roll_of(members: Sequence[Member]) -> str:
    """What a checkpoint keeps of the members: who holds what, under which number."""
    return json.dumps([[member.partition_id, member.own_folder, *identity(member)[1:]] for member in members])


def known_members(roll: str) -> list[Member]:
    """The members of the run whose checkpoint has this roll, with node ids that no node has; empty if it is no roll."""
    try:
        return [
            Member(-1 - number, number, examples, np.zeros(0, np.int64), AWAY, data, evaluated, own, deal=deal)
            for number, own, data, examples, evaluated, deal in json.loads(roll)
        ]
    except (ValueError, TypeError):
        return []


def in_their_places(present: Sequence[Member], known: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Give those who are present the numbers that they had.

    Args:
        present: Members of a roll call.
        known: All members of the run, in partition order.

    Returns:
        All members of the run, those who are away as they are in `known`; and those present who were never members.
    """
    here = {identity(member): member for member in present}
    members = []
    for one in known:
        found = here.pop(identity(one), None)
        away = replace(one, histogram=np.zeros_like(present[0].histogram if present else one.histogram))
        members.append(replace(found, partition_id=one.partition_id) if found else away)
    return members, list(here.values())
