"""How many clients fit on which machines; the simulation's pool and the server's log must agree on it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 1 << 30
GPU_UNITS = 10_000  # Ray counts in ten-thousandths of a GPU, and drops anything smaller


@dataclass(frozen=True)
class Share:
    """What one client, or one machine, has.

    Attributes:
        cpus: For a client: how many threads it computes with.
        gpus: For a client: below 1, the fraction of one GPU's memory that it may take.
    """

    cpus: float
    gpus: float

    def __str__(self) -> str:
        cpus = "no CPU" if not self.cpus else f"{self.cpus:g} {'CPU' if self.cpus <= 1 else 'CPUs'}"
        gpus = "no GPU" if not self.gpus else f"{self.gpus:g} {'GPU' if self.gpus <= 1 else 'GPUs'}"
        return f"{cpus} and {gpus}"


def machines_of(nodes: Sequence[Mapping[str, Any]]) -> list[Share]:
    """What each live machine in ``ray.nodes()`` has; a machine that is gone has no resources left."""
    found = [node["Resources"] for node in nodes if node.get("Resources")]
    return [Share(float(resources.get("CPU", 0)), float(resources.get("GPU", 0))) for resources in found]


def share_of(client_resources: Mapping[str, float]) -> Share:
    """A client's share from Flower's ``client_resources``; its backend uses no GPU if the key is missing."""
    return Share(float(client_resources.get("num_cpus", 1)), float(client_resources.get("num_gpus", 0)))


def clients_at_once(machines: Sequence[Share], client: Share) -> int:
    """How many clients fit at the same time.

    A fraction of a GPU must be on a single one: two GPUs have room for four clients of 0.4, not for five.
    """
    return sum(_on_one(machine, client) for machine in machines)


def _on_one(machine: Share, client: Share) -> int:
    by_cpus = int(machine.cpus / client.cpus)
    if not client.gpus:
        return by_cpus
    if client.gpus >= 1:
        return min(by_cpus, int(machine.gpus / client.gpus))
    return min(by_cpus, int(machine.gpus) * (GPU_UNITS // max(1, int(client.gpus * GPU_UNITS + 1e-6))))


def check_request(machines: Sequence[Share], client: Share) -> None:
    """Check that one client fits.

    Raises:
        ValueError: It does not; the message names what is there, what was requested, and what to change.
    """
    gpus = client.gpus
    if client.cpus < 1:
        raise ValueError(_request(f"client-resources-num-cpus is {client.cpus:g}; it must be at least 1."))
    if gpus < 0 or (gpus > 1 and gpus % 1) or 0 < gpus < 1 / GPU_UNITS:
        allowed = f"0, from {1 / GPU_UNITS} to 1, or a whole number"
        raise ValueError(_request(f"client-resources-num-gpus is {gpus:g}; it must be {allowed}."))
    if clients_at_once(machines, client):
        return
    largest = max(machines, key=lambda machine: (machine.gpus >= gpus, machine.cpus), default=Share(0, 0))
    changes = []
    if client.cpus > largest.cpus:
        changes.append(f"client-resources-num-cpus={max(1, int(largest.cpus))}")
    if gpus > largest.gpus:
        changes.append(f"client-resources-num-gpus={largest.gpus:g}")
    where = "this machine" if len(machines) == 1 else f"the largest of {len(machines)} machines"
    change = " and ".join(changes)
    raise ValueError(_request(f"each client requests {client}, but {where} has {largest}; set {change}."))


def _request(problem: str) -> str:
    return f"--federation-config: {problem}"


def memory_bytes(kind: str = "MemTotal", root: Path = Path("/")) -> int | None:
    """Memory of this machine or container.

    Args:
        kind: ``MemTotal``, or ``MemAvailable`` for what can be used without swapping.
        root: Where ``proc`` and ``sys`` are.

    Returns:
        None if the system does not report it.
    """
    try:
        found = re.search(rf"^{kind}:\s+(\d+) kB", (root / "proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    if not found:
        return None
    return min([int(found[1]) * 1024, *_container_limits(kind, root / "sys/fs/cgroup")])


def _container_limits(kind: str, cgroup: Path) -> list[int]:
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        files = re.search(r"^inactive_file (\d+)$", (cgroup / "memory.stat").read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):  # not a container, or "max": one without a limit
        return []
    return [limit if kind == "MemTotal" else limit - used + (int(files[1]) if files else 0)]
