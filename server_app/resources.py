"""What the machines have, what clients take of it, and what stays idle: logged at a run's start."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import INFO, WARNING
from typing import Any

from flwr.common import log
from flwr.serverapp import Grid

from server_app.grid import is_remote
from server_app.members import Member
from simulation.capacity import GIB, Share, clients_at_once, machines_of, memory_bytes

IDLE = 0.2  # share of the CPUs that may be idle without a warning
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
