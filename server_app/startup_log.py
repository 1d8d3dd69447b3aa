"""What a run logs at its start: its settings, its clients and their data, the machines, and what stays idle."""

import sys
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common import log
from flwr.serverapp import Grid

from config.advice import advice_on_learning_rate
from config.run_config import RunConfig
from config.stems import has_small_stem, stem_of, usual_stem
from data.confusion import MANY_CLASSES
from data.text import label
from learning.method import Method
from learning.pretrained import warnings_of_normalization
from learning.schedule import changes, rates
from server_app.grid import is_remote
from server_app.members import Member
from simulation.capacity import GIB, Share, clients_at_once, machines_of, memory_bytes

ROLL_ROWS = 12  # larger federations are summarised
IDLE = 0.2  # share of the CPUs that may be idle without a warning
FEW = 5  # images, below which a number over them tells about single ones
ANY = 1e9  # more CPUs than any machine has
WHERE = "in --federation-config"


@dataclass(frozen=True)
class Facts:
    """What is known once every client has answered.

    Attributes:
        machines: What each machine of the simulation has; empty for real nodes.
        memory: Bytes of this machine; None if the system does not report it.
        client: Each client's share; None for real nodes.
        clients: How many there are.
        sampled: How many of them train in each round.
        on_gpu: Whether any of them trains on a GPU.
        fraction_train: The run config's.
    """

    machines: Sequence[Share]
    memory: int | None
    client: Share | None
    clients: int
    sampled: int
    on_gpu: bool
    fraction_train: float


def gather(grid: Grid, members: Sequence[Member], sampled: int, fraction_train: float) -> Facts:
    """Collect the facts from Ray, which runs in the server's process in a simulation, and from the roll call."""
    ray: Any = sys.modules.get("ray")
    simulated = not is_remote(grid) and ray is not None and ray.is_initialized()
    client = members[0].share if simulated else None
    machines = machines_of(ray.nodes()) if client else []
    on_gpu = any(member.compute.startswith("cuda") for member in members)
    return Facts(machines, memory_bytes(), client, len(members), sampled, on_gpu, fraction_train)


def describe(facts: Facts) -> list[str]:
    """Lines for the log about machines and clients."""
    train = f"Each round  {facts.sampled} of them {'trains' if facts.sampled == 1 else 'train'}"
    if facts.client is None:
        return [f"Clients     {facts.clients}", train]
    if len(facts.machines) == 1:
        memory = f", {facts.memory / GIB:.1f} GiB of memory" if facts.memory else ""
        machines = f"Machine     {facts.machines[0]}{memory}"
    else:
        machines = f"Machines    {len(facts.machines)}, together {_total(facts.machines)}"
    capacity = clients_at_once(facts.machines, facts.client)
    return [machines, f"Clients     {facts.clients}, each with {facts.client}", f"{train}; room for {capacity} at once"]


def warnings(facts: Facts) -> list[str]:
    """What stays idle, and the setting that changes it, worst first."""
    if facts.client is None:
        return []
    total, client = _total(facts.machines), facts.client
    lines = []
    if total.gpus and not client.gpus:
        lines.append(
            f"Idle: {total.gpus:g} {'GPU' if total.gpus == 1 else 'GPUs'}. Clients were given none; add"
            f" client-resources-num-gpus=0.25 {WHERE}, or the value that `python -m probe` recommends."
        )
    if client.gpus and not facts.on_gpu:
        lines.append(
            f"Clients were given {client.gpus:g} GPU, but train on the CPU: this PyTorch sees no GPU. Install a build"
            " for your GPU, or check the driver (nvidia-smi)."
        )
    if client.gpus > 1:
        lines.append(
            f"A client computes on one GPU, but was given {client.gpus:g}: the others are idle. Use"
            f" client-resources-num-gpus=1 {WHERE}."
        )
    capacity = clients_at_once(facts.machines, client)
    if client.gpus:
        lines += _gpus_that_wait_for_cpus(facts, client, capacity)
        lines += _gpus_without_clients(facts, client, capacity) if facts.on_gpu else []
    elif not total.gpus:
        lines += _idle_cpus(facts, client, capacity)
    return lines


def _gpus_that_wait_for_cpus(facts: Facts, client: Share, capacity: int) -> list[str]:
    gpu_capacity = clients_at_once([replace(machine, cpus=ANY) for machine in facts.machines], client)
    wanted = min(gpu_capacity, facts.sampled)
    if capacity >= wanted:
        return []
    cpus = int(_total(facts.machines).cpus / wanted)
    change = f"; use client-resources-num-cpus={cpus} {WHERE}" if cpus else ""
    return [f"GPUs have room for {gpu_capacity} clients at once, CPUs only for {capacity}{change}."]


def _gpus_without_clients(facts: Facts, client: Share, capacity: int) -> list[str]:
    """The pool gives each client of a round a GPU of its own as long as there are any."""
    total = _total(facts.machines).gpus
    if client.gpus > 1 or facts.sampled >= total or facts.sampled > capacity:  # then CPUs are the limit
        return []
    clients = f"{facts.sampled} {'client trains' if facts.sampled == 1 else 'clients train'} in each round"
    most = "more clients" if facts.fraction_train == 1 else f"a fraction-train above {facts.fraction_train:g}"
    whole = f", and client-resources-num-gpus=1 {WHERE} to give each a whole GPU" if client.gpus < 1 else ""
    return [f"Idle: {total - facts.sampled:g} of {total:g} GPUs, because only {clients}; use {most}{whole}."]


def _idle_cpus(facts: Facts, client: Share, capacity: int) -> list[str]:
    total = _total(facts.machines).cpus
    busy = min(capacity, facts.sampled)
    idle = total - busy * client.cpus
    if idle <= IDLE * total:
        return []
    text = f"Idle: {idle:g} of {total:g} CPUs, with {busy} {'client' if busy == 1 else 'clients'} at once"
    if facts.sampled < capacity:
        cpus = int(min(total / facts.sampled, max(machine.cpus for machine in facts.machines)))
        more = f"; use client-resources-num-cpus={cpus} {WHERE}, or a fraction-train above {facts.fraction_train:g}."
        return [text + more]
    cpus = max(
        cpus
        for cpus in range(1, int(client.cpus) + 1)
        if cpus == 1 or all(machine.cpus % cpus == 0 for machine in facts.machines)
    )
    return [f"{text}; use client-resources-num-cpus={cpus} {WHERE}."]


def _total(machines: Sequence[Share]) -> Share:
    return Share(sum(machine.cpus for machine in machines), sum(machine.gpus for machine in machines))


def roll_table(members: list[Member], class_names: tuple[str, ...]) -> list[str]:
    """The members as a table for the log."""
    lines = [f"{'client':>6}  {'images':>8}  {'classes':>7}  most frequent label      compute"]
    for member in members[:ROLL_ROWS]:
        top = int(member.histogram.argmax())
        share = member.histogram[top] / member.num_examples
        most = f"{label(class_names[top])} ({share:.0%})"
        lines.append(
            f"{member.partition_id:>6}  {member.num_examples:>8,}  {np.count_nonzero(member.histogram):>7}"
            f"  {most:<23}  {member.compute}"
        )
    if len(members) > ROLL_ROWS:
        lines.append(f"{'...':>6}  and {len(members) - ROLL_ROWS} more clients")
    total = sum(member.num_examples for member in members)
    lines.append(f"{'all':>6}  {total:>8,}  {np.count_nonzero(sum(member.histogram for member in members)):>7}")
    machines = Counter(member.machine for member in members if member.machine)
    lines += [f"{count:>6}  answered from {machine}" for machine, count in sorted(machines.items())]
    return lines + _label_table([member for member in members if member.own_folder][:ROLL_ROWS], class_names)


def _label_table(sites: list[Member], class_names: tuple[str, ...]) -> list[str]:
    """Which node each site is, and how many of its images carry each label; for slices, the scheme decides that."""
    if not sites:
        return []
    lines = [f"client {site.partition_id} is node {site.node_id}" for site in sites]
    names = [label(name) for name in class_names[:MANY_CLASSES]]
    width = max(map(len, ("label", *names)))
    lines.append(f"{'label':<{width}}" + "".join(f"{f'client {site.partition_id}':>11}" for site in sites))
    for index, name in enumerate(names):
        lines.append(f"{name:<{width}}" + "".join(f"{site.histogram[index]:>11,}" for site in sites))
    return lines + [f"and {len(class_names) - len(names):,} more labels"] * (len(class_names) > len(names))


def rate_lines(config: RunConfig) -> list[str]:
    """How learning rates go from round to round, in one line; nothing if they are all the same."""
    found = rates(config) if changes(config) else []
    if len(set(found)) < 2:
        return []
    highest = found.index(max(found))
    shown = sorted({0, highest, len(found) - 1})
    return [f"Rates       {', '.join(f'{found[one]:.3g} in round {one + 1}' for one in shown)} ({config.lr_schedule})"]


def log_run(config: RunConfig, root: Path | None, classes: int, run_dir: Path, device: str, roll: list[str]) -> None:
    """Log what a run is, with a table of its clients; `root` is None for a server without data."""
    log(INFO, "Run folder  %s", run_dir)
    log(INFO, "Data        %s (%d classes)", root or "none here; what clients have", classes)
    log(INFO, "Server      %s on %s", config.model, device)
    stem = f", stem {stem_of(config)}" if has_small_stem(config.model) else ""
    log(INFO, "Inputs      %d pixels%s, normalization %s", config.image_size, stem, config.normalization)
    log(INFO, "Training    %s on clients, %s on the server", config.method, config.strategy)
    for line in rate_lines(config):
        log(INFO, "%s", line)
    values = config.to_flat()
    usual = RunConfig().to_flat() | {
        "method": config.method, "strategy": config.strategy, "stem": usual_stem(values),
    }  # fmt: skip
    changed = {key: value for key, value in values.items() if value != usual[key]}
    log(INFO, "Settings    %d differ from the defaults; config.toml has all", len(changed))
    for key, value in changed.items():
        log(INFO, "  %-18s %s", key, value if value != "" else '""')
    for line in roll:
        log(INFO, "%s", line)


def warn_of_weights(members: Sequence[Member]) -> None:
    """Warn of a client that decides alone: numbers of images are weights, and clients report their own."""
    total = sum(member.num_examples for member in members)
    largest = max(members, key=lambda member: member.num_examples)
    if len(members) > 2 and 2 * largest.num_examples > total:
        log(
            WARNING,
            "Client %d reports %s of all %s images, and so decides most of each mean.",
            largest.partition_id,
            f"{largest.num_examples:,}",
            f"{total:,}",
        )


def warn_of_partition(config: RunConfig, members: Sequence[Member]) -> None:
    """Warn of a partition that was asked for, of clients that have folders of their own: nothing is dealt to them."""
    if config.partition != "iid" and members[0].own_folder:
        log(
            WARNING,
            "'partition' is '%s', but nothing is dealt: each client trains on all images of a folder of its own.",
            config.partition,
        )


def warn_of_few_images(config: RunConfig, members: Sequence[Member]) -> None:
    """Warn of clients whose reports are about so few images that they tell something about each of them."""
    few = [
        member.partition_id
        for member in members
        if 0 < member.held_out < FEW or (config.inspection != "none" and member.num_examples < FEW)
    ]
    if few:
        log(
            WARNING,
            "Some numbers that %s %s%s will report are about fewer than %d images, and so tell about single ones; see"
            " docs/clients.md.",
            "client" if len(few) == 1 else "clients",
            ", ".join(map(str, few[:ROLL_ROWS])),
            f" and {len(few) - ROLL_ROWS} more" if len(few) > ROLL_ROWS else "",
            FEW,
        )


def warn_of_learning_rate(config: RunConfig, method: Method, set_by_user: Container[str]) -> None:
    """Warn of a learning rate that does not suit the method or the optimiser, unless the user set it."""
    for line in advice_on_learning_rate(config, method, set_by_user):
        log(WARNING, "%s", line)


def warn_of_initial_weights(config: RunConfig) -> None:
    """Warn of pretrained weights that were trained on inputs of another mean and deviation, and of missing ones."""
    for line in warnings_of_normalization(config):
        log(WARNING, "%s", line)
    if config.trainable == "all" and config.batchnorm == "frozen" and config.pretrained == "none":
        log(
            WARNING,
            "'batchnorm' is 'frozen' and 'pretrained' is 'none': BatchNorm's statistics stay a mean of 0 and a variance"
            " of 1, which normalise nothing.",
        )
    if config.trainable != "all" and config.pretrained == "none":
        log(
            WARNING,
            "'trainable' is '%s' and 'pretrained' is 'none': the weights that do not train stay as they were drawn.",
            config.trainable,
        )


def alone(facts: Facts) -> list[str]:
    """Whether one client trains in each round, which is easily overlooked: Flower's own default is two clients."""
    if facts.sampled > 1:
        return []
    more = f"set num-supernodes=10 {WHERE}" if facts.client else "connect more nodes"
    if facts.clients == 1:
        return [f"There is only one client, so nothing is averaged; {more}."]
    return [
        f"Only 1 of {facts.clients} clients trains in each round, so nothing is averaged; {more}, or a larger"
        f" 'fraction-train' than {facts.fraction_train:g}."
    ]


def log_resources(facts: Facts) -> None:
    for line in describe(facts):
        log(INFO, "%s", line)
    for line in alone(facts) + warnings(facts):
        log(WARNING, "%s", line)
